"""The benchmark of replies: places, gains, diversity, and what is trained on."""

import json

import numpy as np
import pytest
import typer

from benchmarks.dialogues import PIECE, some_dialogues
from benchmarks.g2r_systems import BEFORE
from benchmarks.judges import Judge, judges_of
from benchmarks.replies import add_gains, diversity, in_whole_set, of_sets
from benchmarks.reply_labels import questions, worth
from haystack_distill.data.dialogues import Context, read_contexts
from haystack_distill.teachers.likelihood import LikelihoodTeacher
from haystack_distill.teachers.readers import load_reader
from haystack_distill.teachers.scores import Candidates
from tests.conftest import write_lines


class TestBenchmark:
    def test_places_in_the_response_set_are_those_of_one_big_sort(self):
        random = np.random.default_rng(0)
        pool, replies = [f"p{n}" for n in range(40)], ["p3", *(f"t{n}" for n in range(8)), "t0"]
        vectors = {text: random.normal(size=4) for text in {*pool, *replies}}
        queries = random.normal(size=(len(replies), 4))
        scores = queries @ np.stack([vectors[text] for text in pool]).T
        found = np.argsort(-scores, axis=1)[:, :10]
        own = np.stack([vectors[text] for text in replies])
        places = in_whole_set(queries, own, replies, np.take_along_axis(scores, found, 1), pool, found)
        for query, reply, place in zip(queries, replies, places, strict=True):
            ordered = sorted({*pool, *replies}, key=lambda text: -(vectors[text] @ query))
            assert min(10, ordered.index(reply)) == min(10, place)

    def test_a_gain_is_over_the_step_before(self):
        hits = {"data": [1, 0, 0, 0], "data+ll": [1, 1, 1, 0], "data+mi": [1, 1, 0, 0]}
        rows = [
            {"system": name, "per_context": {"hits@1": found, "judge:one": [-1.0, -2.0, -3.0, -4.0]}}
            for name, found in hits.items()
        ]
        add_gains(rows, BEFORE)
        data, ll, mi = rows
        assert "hits@1_gain" not in data  # the step before it is not in the table
        assert (ll["hits@1_gain"], mi["hits@1_gain"]) == (0.5, 0.25)
        assert mi["hits@1_gain_low"] <= 0.25 <= mi["hits@1_gain_high"]
        assert (mi["judge:one_gain"], mi["judge:one_low"], mi["judge:one_high"]) == (0, 0, 0)

    def test_of_three_replies_the_nearest_counts(self):
        """The first three are alike; a set reaches the one that the person gave, in the third direction."""
        one, near, other = [1.0, 0.0, 0.0], [0.8, 0.6, 0.0], [0.0, 0.0, 1.0]
        found = of_sets(np.array([[one, one, near, other, other]]), np.array([other]))
        assert found["top_near"].tolist() == [0.0]
        assert found["set_near"].tolist() == [1.0]
        assert found["top_alike"] == pytest.approx([(1 + 0.8 + 0.8) / 3])
        assert found["set_alike"][0] < found["top_alike"][0]

    def test_distinct_n_grams_are_counted_over_all_replies(self):
        found = diversity(["I like it.", "I like it!"])
        assert found["dist2"] == 4 / 6  # i like, like it (twice each), it ., it !
        assert found["dist3"] == 3 / 4
        assert found["length"] == 4

    def test_training_contexts_come_from_the_middle_of_many_dialogues(self, tmp_path):
        long = [{"_id": f"l{number}", "turns": [f"{number} {turn}" for turn in range(30)]} for number in range(20)]
        short = [{"_id": f"s{number}", "turns": [f"hi {number}", "bye"]} for number in range(20)]
        source = write_lines(tmp_path / "train.jsonl", [*long, *short])
        chosen = some_dialogues(source, 40, tmp_path / "some.jsonl")
        lines = [json.loads(line) for line in chosen.read_text().splitlines()]
        assert {line["_id"][0] for line in lines} == {"l", "s"}
        assert all(line["turns"] == [f"{line['_id'][1:]} {turn}" for turn in range(11, 19)] for line in lines[:5])
        assert max(len(line["turns"]) for line in lines) == PIECE
        assert len(list(read_contexts(chosen, 4))) == pytest.approx(40, abs=7)


class TestLabels:
    def test_a_label_is_worth_how_it_ranks_what_people_replied(self):
        """The person's reply is the first of each row, ten others' follow, and then what was written."""
        above, below_one, last = [11.0, *range(1, 11), 12.0], [9.5, *range(1, 11), 0.0], [0.0, *range(1, 11), 1.0]
        found = worth([np.array(row) for row in (above, below_one, last)])
        assert (found["first"], found["last"]) == (pytest.approx(1 / 3), pytest.approx(2 / 3))
        assert found["pairs"] == pytest.approx((10 + 9 + 0) / 30)

    def test_rivals_are_other_replies_of_people(self, tmp_path):
        turns = [[f"hi {number}", "yes" if number % 2 else f"reply {number}"] for number in range(40)]
        source = write_lines(
            tmp_path / "dev.jsonl", [{"_id": f"d{number}", "turns": said} for number, said in enumerate(turns)]
        )
        asked = questions(source, 40, lambda some: {one.id: [f"made {one.id}"] for one in some})
        assert len(asked) == 40
        for one in asked:
            human, *rest = one.replies
            assert human == one.context.response
            assert human not in rest
            assert len(set(rest[:10])) == 10
            assert rest[10:] == one.written == one.candidates(1).answers


class TestJudges:
    def test_remember_what_they_scored(self, llama, tmp_path, monkeypatch):
        context = Context("d-1", ["river bridge stone?"], "copper")
        judge = Judge("one", llama, tmp_path / "judge.jsonl", signal="mi")
        replies = ["copper velvet.", "winter market."]
        scores = judge.scores([context] * 2, replies)
        teacher = LikelihoodTeacher(load_reader(llama), "mi")
        expected = teacher.score([Candidates(context.turns[0], replies, [])])[0].scores
        assert scores == pytest.approx(expected.tolist(), abs=1e-4)
        monkeypatch.setattr("benchmarks.judges.load_reader", lambda *_, **__: pytest.fail("it was scored before"))
        assert Judge("one", llama, tmp_path / "judge.jsonl", signal="mi").scores([context] * 2, replies) == scores

    def test_a_judge_without_a_model_is_refused(self, tmp_path):
        with pytest.raises(typer.BadParameter, match="NAME=MODEL"):
            judges_of(["one"], tmp_path, None)
