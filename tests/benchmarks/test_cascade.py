"""The cascade benchmark runs on a tiny folder, and what it says of a cascade can be counted."""

import json

import numpy as np

from benchmarks import cascade
from tests.benchmarks.conftest import ASKED

FIELDS = {
    *("data", "queries", "system", "ndcg@10", "share_of_teacher", "ci_low", "ci_high", "share_sent_up"),
    *("share_to_teacher", "ms", "speedup", "calibrated_on"),
}


def test_it_runs_and_learns_nothing_that_test_asks(leaking, trained_on, tiny, tmp_path):
    encoder, file = tiny(cascade), tmp_path / "rows.json"
    cascade.main(data=leaking, json=file, quick=True, model=encoder, cache=tmp_path / "cache")
    rows = json.loads(file.read_text())
    assert [row["system"] for row in rows] == ["teacher", *cascade.STUDENTS, *cascade.CASCADES]
    assert all(row.keys() == FIELDS and row["queries"] == "test" for row in rows)
    for row in rows:
        assert row["ms"] > 0
        if row["system"].startswith("cascade"):
            assert 0 <= row["share_to_teacher"] <= row["share_sent_up"] <= 1
            assert row["calibrated_on"].endswith("held-out sentences, share 0.1")
    assert trained_on
    assert ASKED not in trained_on


def test_a_cascade_answers_with_the_first_encoder_above_its_threshold():
    runs = [
        {"p": {"a": 0.9, "b": 0.5}, "q": {"a": 0.4, "b": 0.3}, "r": {"a": 0.2}},
        {"p": {"c": 0.1}, "q": {"c": 0.8, "e": 0.1}, "r": {"c": 0.9, "e": 0.45}},
        {"p": {"d": 0.1}, "q": {"d": 0.1}, "r": {"d": 0.1}},
    ]
    run, answered = cascade._answers(runs, [1.0, 1.9])
    np.testing.assert_array_equal(answered, [0, 1, 2])
    assert {query: next(iter(found)) for query, found in run.items()} == {"p": "a", "q": "c", "r": "d"}
