"""The table of fitted hybrids: it runs, its rows say what they should, and no test question is labelled."""

import json

import pytest

from benchmarks import fusion
from haystack_distill.data.training_set import TrainingSet
from tests.benchmarks.conftest import ASKED

FIELDS = {
    *("data", "system", "encoder", "teacher", "labels", "weight", "ndcg@10", "ci_low", "ci_high"),
    *("p_vs_rrf", "share_of_oracle", "ms", "labelled_on"),
}


def test_every_teacher_is_measured_and_learns_nothing_of_test(leaking, bert, reader_folder, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    fusion.main(
        data=[leaking],
        teacher=None,
        labels=None,
        json=tmp_path / "rows.json",
        model=bert,
        reader=reader_folder("llama"),
        passage_tokens=40,
        quick=True,
    )
    rows = json.loads((tmp_path / "rows.json").read_text())
    baselines = {row["system"]: row for row in rows if row["teacher"] is None}
    assert baselines.keys() == {"keyword", "dense", "rrf", "dbsf", "oracle"}
    fitted = {row["teacher"]: row for row in rows if row["system"] == "fitted"}
    assert fitted.keys() == set(fusion.TEACHERS)
    best = baselines["oracle"]["ndcg@10"]
    for row in rows:
        assert row.keys() >= FIELDS
        assert row["ci_low"] <= row["ndcg@10"] <= row["ci_high"]
        assert row["share_of_oracle"] == pytest.approx(row["ndcg@10"] / best)
    assert best >= max(baselines[name]["ndcg@10"] for name in ("keyword", "dense")) - 1e-9
    assert all(0 <= row["weight"] <= 1 and row["labels"] == 10 for row in fitted.values())
    labels = next(tmp_path.rglob("labels-*/training_set.json")).parent
    assert ASKED.lower() not in {row.query.lower() for row in TrainingSet.open(labels).labelled()}
