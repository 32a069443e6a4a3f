"""The benchmark of replies: places, gains, diversity, and what is trained on."""

import json

import numpy as np
import pytest

from benchmarks.dialogues import PIECE, contexts_in, some_dialogues
from benchmarks.g2r import BEFORE
from benchmarks.replies import add_gains, diversity, in_whole_set
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
            {"system": name, "per_context": {"hits@1": found, "generator_loglik": [-1.0, -2.0, -3.0, -4.0]}}
            for name, found in hits.items()
        ]
        add_gains(rows, BEFORE)
        data, ll, mi = rows
        assert "gain" not in data  # the step before it is not in the table
        assert (ll["gain"], mi["gain"]) == (0.5, 0.25)
        assert mi["gain_low"] <= 0.25 <= mi["gain_high"]
        assert mi["loglik_gain"] == 0

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
        assert len(list(contexts_in(chosen, 4))) == pytest.approx(40, abs=7)
