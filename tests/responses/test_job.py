"""G2R: every recipe with its proof, its evaluator, and runs that go on."""

import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from sentence_transformers import SentenceTransformer

from haystack_distill.data.training_set import TrainingSet, write_training_set
from haystack_distill.losses.temperature import entropy_temperature
from haystack_distill.responses.building import write_responses
from haystack_distill.responses.evaluator import METRIC, ResponseEvaluator, ranks_among
from haystack_distill.responses.job import distill_responses, read_material
from haystack_distill.responses.training import RECIPES, G2RSettings, make_rows
from tests.conftest import sentences


@pytest.fixture(scope="module")
def mined(augmented, bert, tmp_path_factory) -> Path:
    """With three responses of other contexts in each row, and scores for all."""
    folder = tmp_path_factory.mktemp("mined")
    made = write_responses(augmented, folder / "bare", miner=bert, mined=3, device="cpu")
    random = np.random.default_rng(2)
    scored = [replace(row, teacher_scores=random.normal(-3, 1, len(row.documents)).tolist()) for row in made]
    write_training_set(folder / "set", scored, source="test", teacher={"model": "test", "signal": "response"})
    return folder / "set"


class TestEvaluator:
    def test_ranks_are_those_of_a_full_sort(self):
        random = np.random.default_rng(0)
        contexts, replies = random.normal(size=(30, 4)), random.normal(size=(30, 4))
        texts = [f"reply {number}" for number in range(30)]
        ranks = ranks_among(contexts, replies, texts, candidates=30)
        scores = contexts @ replies.T
        assert ranks.tolist() == [int((scores[row] > scores[row, row]).sum()) for row in range(30)]

    def test_the_same_words_are_no_rival(self):
        vectors = np.eye(3)
        replies = np.stack([vectors[0], vectors[0], vectors[2]])
        assert ranks_among(replies, replies, ["yes", "yes", "no"]).tolist() == [0, 0, 0]

    def test_a_model_that_says_the_same_of_all_hits_nothing(self):
        same = np.ones((5, 2))
        assert (ranks_among(same, same, list("abcde")) > 0).all()

    def test_one_reply_can_t_be_ranked(self):
        with pytest.raises(ValueError, match="no other"):
            ranks_among(np.ones((2, 2)), np.ones((2, 2)), ["a", "a"])

    def test_it_is_named_as_the_trainer_looks_for_it(self, bert):
        lines = sentences(12)
        found = ResponseEvaluator(lines, lines)(SentenceTransformer(bert, device="cpu"))
        assert found[METRIC] == 1.0


SMALL = {"negatives": 8, "batch_size": 8, "epochs": 2, "learning_rate": 1e-3}


class TestRecipes:
    @pytest.mark.parametrize("recipe", RECIPES)
    def test_writes_a_model_that_learned(self, recipe, labelled, mined, bert, tmp_path):
        training_set, chosen = mined if recipe == "strong" else labelled, G2RSettings(**{"recipe": recipe, **SMALL})
        figures = distill_responses(training_set, bert, tmp_path / "model", chosen, device="cpu", progress=False)
        model = SentenceTransformer(str(tmp_path / "model"), device="cpu")
        before = SentenceTransformer(bert, device="cpu")
        assert not np.allclose(model.encode("river"), before.encode("river"), atol=1e-3)
        assert figures == json.loads((tmp_path / "model" / "metrics.json").read_text())
        assert {"dev_hits@1", "dev_hits@1_before", "training_seconds"} <= figures.keys()
        assert figures["provenance"]["settings"]["recipe"] == recipe
        assert [path.name for path in tmp_path.iterdir()] == ["model"]

    def test_its_proof_compares_with_what_it_was_on_the_same_candidates(self, labelled, bert, tmp_path):
        chosen = G2RSettings(recipe="data", **SMALL)
        figures = distill_responses(labelled, bert, tmp_path / "model", chosen, device="cpu", progress=False)
        (contexts, replies), hits = zip(*read_material(TrainingSet.open(labelled), chosen).dev, strict=True), {}
        for name, folder in (("untouched", bert), ("student", tmp_path / "model")):
            model = SentenceTransformer(str(folder), device="cpu")
            vectors = [model.encode(texts, normalize_embeddings=True) for texts in (contexts, replies)]
            scores = vectors[0] @ vectors[1].T  # fewer than a hundred: all are candidates
            others = [[other for other in range(len(replies)) if replies[other] != reply] for reply in replies]
            ranks = [np.sum(scores[row, others[row]] >= scores[row, row]) for row in range(len(replies))]
            hits[name] = np.array(ranks) < 1
            assert figures[name]["hits@1"] == pytest.approx(hits[name].mean())
            gains = [1 / math.log2(rank + 2) if rank < 10 else 0 for rank in ranks]
            assert figures[name]["ndcg@10"] == pytest.approx(np.mean(gains))
            assert figures[name]["mrr@10"] == pytest.approx(
                np.mean([1 / (rank + 1) if rank < 10 else 0 for rank in ranks])
            )
        found = figures["dev_hits@1_significance"]
        assert found["difference"] == pytest.approx(hits["student"].mean() - hits["untouched"].mean())
        assert found["low"] <= found["difference"] <= found["high"]
        assert 0 < found["p"] <= 1
        assert figures["significance"]["difference"] == pytest.approx(
            figures["student"]["ndcg@10"] - figures["untouched"]["ndcg@10"]
        )
        page = (tmp_path / "model" / "report.html").read_text()
        assert "first by the untouched" in page
        assert "the human reply among a hundred candidates" in page
        assert "dev hits@1" in page, "the learning curve"
        documented = (Path(__file__).parents[2] / "docs" / "metrics.md").read_text()
        assert all(f"`{name}`" in documented for name in figures if name not in {"seed", "versions"})
        made = json.loads((tmp_path / "model" / "haystack_distill.json").read_text())
        assert made["index"] == {"dim": 32, "similarity": "cosine", "normalized": True}

    def test_a_training_that_does_not_help_says_so(self, labelled, bert, tmp_path, caplog):
        chosen = G2RSettings(recipe="dialogues", **{**SMALL, "epochs": 1, "learning_rate": 1e-9})
        distill_responses(labelled, bert, tmp_path / "model", chosen, device="cpu", progress=False)
        assert "not better on dev" in caplog.text

    @pytest.mark.parametrize("recipe", ["data", "model"])
    def test_training_finds_what_is_trained_on(self, recipe, augmented, labelled, make_encoder, tmp_path):
        """Replies repeat the last word of their context."""
        chosen = G2RSettings(recipe=recipe, **{**SMALL, "negatives": 32, "epochs": 12, "learning_rate": 1e-2})
        figures = distill_responses(
            labelled,
            make_encoder("bert", layers=1),
            tmp_path / "model",
            chosen,
            dev=augmented,
            device="cpu",
            progress=False,
        )
        assert figures["dev_contexts"] == 40
        assert figures["dev_hits@1"] > figures["dev_hits@1_before"]

    def test_a_killed_run_goes_on_and_ends_as_an_unbroken_one(self, labelled, bert, tmp_path, monkeypatch):
        chosen = G2RSettings(recipe="model", **{**SMALL, "epochs": 3})
        whole = distill_responses(labelled, bert, tmp_path / "whole", chosen, device="cpu", progress=False)
        called = []
        evaluate = ResponseEvaluator.__call__

        def killed(self, *args, **kwargs):
            called.append(1)
            if len(called) == 3:  # before training, after the first epoch, after the second
                raise KeyboardInterrupt
            return evaluate(self, *args, **kwargs)

        with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
            patch.setattr(ResponseEvaluator, "__call__", killed)
            distill_responses(labelled, bert, tmp_path / "broken", chosen, device="cpu", progress=False)
        assert not (tmp_path / "broken").exists()
        again = distill_responses(labelled, bert, tmp_path / "broken", chosen, device="cpu", progress=False)
        assert [entry["dev_hits@1"] for entry in again["history"]] == [
            entry["dev_hits@1"] for entry in whole["history"]
        ]
        one, other = (SentenceTransformer(str(tmp_path / name), device="cpu") for name in ("whole", "broken"))
        assert np.allclose(one.encode("river bridge"), other.encode("river bridge"), atol=1e-5)

    def test_other_settings_don_t_go_on_from_it(self, labelled, bert, tmp_path, monkeypatch):
        monkeypatch.setattr("haystack_distill.responses.job.run_trainer", _dies)
        with pytest.raises(KeyboardInterrupt):
            distill_responses(labelled, bert, tmp_path / "m", G2RSettings(**SMALL), device="cpu", progress=False)
        (tmp_path / ".m.run" / "checkpoints" / "checkpoint-1").mkdir(parents=True)
        with pytest.raises(ValueError, match="other settings"):
            distill_responses(
                labelled, bert, tmp_path / "m", G2RSettings(alpha=0.5, **SMALL), device="cpu", progress=False
            )

    def test_scores_are_asked_for_where_they_are_needed(self, augmented, bert, tmp_path):
        write_responses(augmented, tmp_path / "set")
        with pytest.raises(ValueError, match="no teacher scores"):
            distill_responses(tmp_path / "set", bert, tmp_path / "m", G2RSettings(recipe="strong"), progress=False)

    def test_candidates_are_masked_and_limited(self, labelled, bert):
        rows = [row for row in TrainingSet.open(labelled) if row.teacher_scores]
        chosen = G2RSettings(max_candidates=2)
        made, loss = make_rows(rows, SentenceTransformer(bert, device="cpu"), chosen)
        assert set(made.column_names) == {"query", "document_1", "document_2", "label"}
        assert loss.alpha == 0.1
        for row, kept in zip(rows, made, strict=True):
            there = [not math.isnan(score) for score in kept["label"]]
            assert sum(there) == min(2, len(row.documents))
            for number, real in enumerate(there):
                text = kept[f"document_{number + 1}"]
                assert (text == "") != real
                if real:
                    assert kept["label"][number] == pytest.approx(row.teacher_scores[row.documents.index(text)])

    def test_strong_trains_on_mined_responses_in_the_unit_of_the_cosines(self, mined, bert):
        rows = [row for row in TrainingSet.open(mined) if row.teacher_scores]
        made, loss = make_rows(rows, SentenceTransformer(bert, device="cpu"), G2RSettings(recipe="strong"))
        assert made.column_names == ["query", "human", "mined_1", "mined_2", "mined_3", "label"]
        teacher = [row.teacher_scores[-3:] for row in rows]
        temperature = entropy_temperature(teacher, 0.5)
        for row, scores, kept in zip(rows, teacher, made, strict=True):
            assert kept["human"] == row.documents[0]
            texts = [kept[f"mined_{number}"] for number in (1, 2, 3)]
            given_scores = dict(zip(row.documents[-3:], scores, strict=True))
            assert sorted(texts) == sorted(given_scores)
            assert given_scores[texts[0]] == max(scores)
            assert kept["label"] == pytest.approx([given_scores[text] / temperature for text in texts])
        assert loss.scale == 20

    @pytest.mark.parametrize("recipe", ["data", "model"])
    def test_mined_responses_are_no_positives(self, recipe, mined, bert):
        rows = [row for row in TrainingSet.open(mined) if row.teacher_scores]
        made, _ = make_rows(rows, SentenceTransformer(bert, device="cpu"), G2RSettings(recipe=recipe))
        for row, kept in zip(rows, made, strict=True):
            there = [kept[name] for name in made.column_names if name.startswith("document") and kept[name]]
            assert there == row.documents[:-3]

    def test_strong_needs_mined_responses(self, labelled, bert, tmp_path):
        with pytest.raises(ValueError, match="give ResponseSetBuilder a `miner`"):
            distill_responses(labelled, bert, tmp_path / "m", G2RSettings(recipe="strong"), progress=False)

    def test_an_unknown_recipe_is_named(self):
        with pytest.raises(ValueError, match="no recipe 'best'"):
            G2RSettings(recipe="best")


def _dies(*_args, **_kwargs):
    raise KeyboardInterrupt
