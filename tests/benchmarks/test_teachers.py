"""The teachers' benchmarks run and count right; never how fast or how good."""

import json
import shutil

import numpy as np
import pytest
import torch

from benchmarks import labels, taught_reader, teachers
from haystack_distill.data.beir import read_beir
from haystack_distill.data.training_set import TrainingSet
from haystack_distill.teachers.prompts import ANSWER, UnscorableError
from haystack_distill.teachers.readers import load_reader
from haystack_distill.teachers.scores import Candidates, Scored
from tests.conftest import write_lines


def test_labels_runs_and_goes_on_where_it_was(beir, bert, llama, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    rows_file = tmp_path / "rows.json"
    asked = {"data": beir, "reader": llama, "json": rows_file, "retriever": bert, "questions": 10, "quick": False}
    asked |= {"signal": None, "taught": 0, "dtype": None}
    labels.main(**asked, split="dev")
    rows = json.loads(rows_file.read_text())
    assert [row["signal"] for row in rows] == ["question", "dkrr", "icr", "heads"]
    for row in rows:
        assert 0 <= row["low"] <= row["share"] <= row["high"] <= 100
        assert row["first"] <= row["n"]
        assert {"data", "reader", "retriever_first", "answered"} <= row.keys()
    monkeypatch.setattr(labels, "measured", lambda *_: pytest.fail("a finished row was run again"))
    labels.main(**asked, split="dev")


def test_labels_of_a_reader_that_was_taught(beir, bert, llama, tmp_path, monkeypatch):
    """It learns from train questions alone, none of which is measured, and is made once for all signals of a kind."""
    monkeypatch.chdir(tmp_path)
    lines = [json.loads(line) for line in (beir / "queries.jsonl").read_text().splitlines()]
    answers = {line["_id"]: line["text"].split()[0] for line in lines}
    folder = shutil.copytree(beir, tmp_path / "answered")
    rows = [{**line, "metadata": {"answers": [answers[line["_id"]]]}} for line in lines]
    write_lines(folder / "queries.jsonl", rows)
    labels.main(
        data=folder,
        reader=llama,
        json=tmp_path / "rows.json",
        split="dev",
        retriever=bert,
        questions=4,
        signal=["adist-together", "dkrr-taught", "adist-taught", "adist-together-taught"],
        taught=12,
        dtype=None,
        quick=False,
    )
    found = json.loads((tmp_path / "rows.json").read_text())
    assert [row["signal"] for row in found] == [
        *("adist-together", "dkrr-taught", "adist-taught", "adist-together-taught")
    ]
    made = [path.parent for path in tmp_path.rglob("taught-*/fine_tuning.json")]
    assert sorted(json.loads((one / "fine_tuning.json").read_text())["settings"]["signal"] for one in made) == [
        *("loop", "pdist")
    ]
    asked = {line["text"] for line in lines if line["_id"] in read_beir(folder).qrels["dev"]}
    for rows in tmp_path.rglob("taught-*-rows"):
        assert asked.isdisjoint(row.query for row in TrainingSet.open(rows))


def test_a_passage_is_cut_around_its_answer():
    passage = " ".join(["word"] * 100 + ["Oslo", "City"] + ["word"] * 100)
    cut = taught_reader._around(passage, "oslo  city")
    assert len(cut.split()) == taught_reader.WORDS
    assert "Oslo City" in cut
    assert taught_reader._around("one two", "none") == "one two"


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
