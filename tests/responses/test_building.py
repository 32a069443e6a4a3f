"""Training sets of responses: given, generated and mined."""

import json

import pytest
from sentence_transformers import SentenceTransformer

from haystack_distill.data.training_set import TrainingSet
from haystack_distill.responses.building import write_responses
from haystack_distill.responses.job import read_material
from haystack_distill.responses.mining import NEAREST
from haystack_distill.responses.rows import (
    MINED,
    human_ids,
    human_response,
    query_text,
    read_responses,
    response_id,
    response_set,
)
from haystack_distill.responses.training import G2RSettings
from tests.conftest import write_lines


class TestTrainingSets:
    def test_of_generated_responses(self, augmented, tmp_path):
        made = list(write_responses(augmented, tmp_path / "set"))
        given_rows = [json.loads(line) for line in augmented.read_text().splitlines()]
        assert [row.query_id for row in made] == [row["_id"] for row in given_rows]
        assert [row.documents for row in made] == [[one["text"] for one in row["responses"]] for row in given_rows]
        assert all(row.labels == [1] + [0] * (len(row.documents) - 1) for row in made)
        assert made[0].query.split("\n") == given_rows[0]["context"]
        assert made[0].document_ids[0] == response_id(made[0].documents[0])
        assert response_set(made) == {response_id(text): text for row in made for text in row.documents}

    def test_of_dialogues(self, tmp_path):
        file = write_lines(tmp_path / "d.jsonl", [{"_id": "a", "turns": ["one\n two", "three", "four"]}])
        made = list(write_responses(file, tmp_path / "set"))
        assert [(row.query_id, row.query, row.documents) for row in made] == [
            ("a-1", "one two", ["three"]),
            ("a-2", "one two\nthree", ["four"]),
        ]
        assert query_text(made[1].query) == "three | one two"
        assert query_text(made[1].query, history=1) == "three"

    def test_a_set_that_is_there_is_kept_if_it_is_of_the_same_file(self, augmented, tmp_path):
        first = write_responses(augmented, tmp_path / "set")
        assert write_responses(augmented, tmp_path / "set").manifest == first.manifest
        other = write_lines(tmp_path / "o.jsonl", [{"turns": ["a", "b"]}])
        with pytest.raises(FileExistsError):
            write_responses(other, tmp_path / "set")

    def test_duplicates_and_empty_responses_are_left_out(self, tmp_path):
        responses = [{"text": t, "generated": t != "yes"} for t in ("yes", " yes ", "", "no")]
        row = {"_id": "a-1", "context": ["hi"], "responses": responses}
        found = read_responses(write_lines(tmp_path / "r.jsonl", [row]))[0]
        assert (found.texts, found.human) == (["yes", "no"], [True, False])

    def test_generated_replies_are_not_taken_for_human_ones(self, augmented, tmp_path):
        """Where the human reply is missing, no other takes its place."""
        row = {"_id": "a-1", "context": ["hi"], "responses": [{"text": "yes", "generated": True}]}
        made = list(write_responses(write_lines(tmp_path / "r.jsonl", [row]), tmp_path / "one"))
        assert human_response(made[0]) is None
        rows = list(write_responses(augmented, tmp_path / "set"))
        assert human_ids(rows) == {row.document_ids[0] for row in rows}

    @pytest.mark.parametrize(
        ("row", "says"),
        [
            ({"_id": "a", "context": ["hi"], "responses": []}, "no response"),
            ({"_id": "a", "context": [" "], "responses": [{"text": "x"}]}, "no context"),
            ({"_id": "a", "context": ["hi"], "responses": ["x"]}, "expected"),
            ({"_id": "a", "responses": [{"text": "x"}]}, "'context'"),
        ],
    )
    def test_a_broken_line_is_named(self, tmp_path, row, says):
        with pytest.raises(ValueError, match=f"line 1.*{says}"):
            read_responses(write_lines(tmp_path / "r.jsonl", [row]))

    def test_mined_responses_are_near_ones_of_other_contexts(self, augmented, bert, tmp_path):
        plain = list(write_responses(augmented, tmp_path / "plain"))
        made = write_responses(augmented, tmp_path / "mined", miner=bert, mined=3, device="cpu")
        assert (made.manifest["retriever"], made.manifest["similarity"]) == (bert, "cosine")
        model, everything = SentenceTransformer(bert, device="cpu"), response_set(plain)
        for row, before in zip(made, plain, strict=True):
            own = len(before.documents)
            assert row.documents[:own] == before.documents
            assert row.labels == [*before.labels, MINED, MINED, MINED]
            assert not set(row.document_ids[own:]) & set(before.document_ids)
            context, *found = model.encode([query_text(row.query), *row.documents], normalize_embeddings=True)
            assert row.retriever_scores == pytest.approx([float(one @ context) for one in found], abs=1e-4)
            others = [text for key, text in everything.items() if key not in before.document_ids]
            scores = model.encode(others, normalize_embeddings=True) @ context
            assert min(row.retriever_scores[own:]) >= sorted(scores, reverse=True)[:NEAREST][-1] - 1e-4
        assert response_set(made) == everything
        assert human_ids(made) == human_ids(plain)

    def test_a_set_with_mined_responses_is_not_taken_for_one_without(self, augmented, bert, tmp_path):
        first = write_responses(augmented, tmp_path / "set", miner=bert, mined=2, device="cpu")
        again = write_responses(augmented, tmp_path / "set", miner=bert, mined=2, device="cpu")
        assert again.manifest == first.manifest
        with pytest.raises(FileExistsError):
            write_responses(augmented, tmp_path / "set")
        with pytest.raises(FileExistsError):  # before anything is embedded
            write_responses(augmented, tmp_path / "set", miner="no such model", mined=2)

    def test_where_there_are_few_responses_fewer_are_mined(self, bert, tmp_path):
        file = write_lines(tmp_path / "d.jsonl", [{"turns": ["a", "yes", "no"]}])
        made = list(write_responses(file, tmp_path / "set", miner=bert, mined=5, device="cpu"))
        assert [row.documents for row in made] == [["yes", "no"], ["no", "yes"]]
        assert all(row.labels == [1, MINED] for row in made)

    def test_no_dialogue_is_trained_on_and_selected_on(self, labelled):
        opened = TrainingSet.open(labelled)
        material = read_material(opened, G2RSettings())
        trained = {query_text(row.query) for row in material.rows}
        assert len(material.dev) == 4
        assert not trained & {context for context, _ in material.dev}
        everything = read_material(opened, G2RSettings(recipe="data"))
        assert everything.dev == material.dev  # the row without scores does not change what is selected on
        assert len(everything.rows) >= len(material.rows)
