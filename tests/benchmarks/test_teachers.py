"""The teachers' benchmarks run and count right; never how fast or how good."""

import json

import numpy as np
import pytest
import torch

from benchmarks import labels, teachers
from haystack_distill.teachers.prompts import ANSWER, UnscorableError
from haystack_distill.teachers.readers import load_reader
from haystack_distill.teachers.scores import Candidates, Scored


def test_labels_runs_and_goes_on_where_it_was(beir, bert, llama, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    rows_file = tmp_path / "rows.json"
    asked = {"data": beir, "reader": llama, "json": rows_file, "retriever": bert, "questions": 10, "quick": False}
    asked |= {"signal": None, "dtype": None}
    labels.main(**asked, split="dev")
    rows = json.loads(rows_file.read_text())
    assert [row["signal"] for row in rows] == ["question", "dkrr", "icr", "heads"]
    for row in rows:
        assert 0 <= row["low"] <= row["share"] <= row["high"] <= 100
        assert row["first"] <= row["n"]
        assert {"data", "reader", "retriever_first", "answered"} <= row.keys()
    monkeypatch.setattr(labels, "measured", lambda *_: pytest.fail("a finished row was run again"))
    labels.main(**asked, split="dev")


def test_labels_counts_what_comes_first():
    class Last:
        signal = "question"

        def score(self, rows):
            if rows[0].query == "bad":
                msg = "no"
                raise UnscorableError(msg)
            return [Scored(np.arange(len(rows[0].passages)))]

    asked = [
        (Candidates(query, ["a", "b"], []), gold)
        for query, gold in (("x", [False, True]), ("y", [True, False]), ("z", [False, True]), ("bad", [True, False]))
    ]
    row = labels.measured(Last(), asked)
    assert row["answered"] is None
    assert (row["first"], row["n"], row["retriever_first"], row["skipped"]) == (2, 3, 1, 1)


def test_an_answer_is_right_if_it_holds_a_reference_answer(llama):
    reader = load_reader(llama)
    row = Candidates("river?", ["stone bridge", "market"], [])
    ids = reader.encode(ANSWER, row.query, row.passages[:1]).ids
    said = reader.model.generate(torch.tensor([ids]), max_new_tokens=labels.ANSWER_TOKENS, do_sample=False)
    words = reader.tokenizer.decode(said[0, len(ids) :], skip_special_tokens=True).split()
    right, wrong = Candidates(row.query, row.passages, [words[0].upper()]), Candidates(row.query, row.passages, ["zzz"])
    assert labels.Answers(reader).right(right, 0)
    assert not labels.Answers(reader).right(wrong, 0)
    both = [(right, [True, False]), (wrong, [True, False])]

    class First:
        signal = "pdist"

        def score(self, rows):
            return [Scored(np.array([1.0, 0.0])) for _ in rows]

    measured = labels.measured(First(), both, labels.Answers(reader))
    assert (measured["answered"], measured["retriever_answered"], measured["p_answered"]) == (1, 1, 1.0)


def test_teachers_runs(llama, tmp_path):
    teachers.main(
        reader=llama,
        dtype=None,
        json=tmp_path / "rows.json",
        rounds=1,
        signal=["question", "dkrr", "heads"],
        questions=[1, 3],
        quick=True,
    )
    rows = json.loads((tmp_path / "rows.json").read_text())
    assert [(row["signal"], row["questions"]) for row in rows] == [
        *(("question", 1), ("question", 3), ("dkrr", 1), ("dkrr", 3), ("heads", 1))
    ]
    for row in rows:
        assert row["vs_plain"] > 0
        assert row["vs_naive"] > 0
        assert {"tokens", "memory_vs_plain"} <= row.keys()
