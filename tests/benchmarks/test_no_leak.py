"""Every benchmark runs with --quick on data whose train and dev ask what test asks, and none learns it."""

import json
import shutil
from dataclasses import replace
from importlib import import_module

import pytest

from benchmarks import (
    asymmetric,
    cold_start,
    common,
    dkrr,
    g2r,
    kale_limits,
    labels,
    losses,
    new_encoder,
    reply_labels,
    update,
)
from haystack_distill.data.beir import read_beir
from tests.benchmarks.conftest import ASKED
from tests.conftest import sentences


@pytest.fixture(scope="module")
def llama(tmp_path_factory):
    from tests.readers import save_reader

    return save_reader("llama", tmp_path_factory.mktemp("readers") / "llama", chat=True)


def rows_of(file):
    return json.loads(file.read_text())


def test_train_and_dev_lose_what_test_asks(leaking):
    corpus = common.without_test(read_beir(leaking))
    assert set(corpus.qrels["train"]) == {f"q{number}" for number in range(1, 60)}
    assert set(corpus.qrels["dev"]) == {f"q{number}" for number in range(61, 70)}
    assert len(corpus.qrels["test"]) == 20
    given = common.queries_to_align(leaking, read_beir(leaking))
    assert (len(given.train), len(given.dev), len(given.dev_qrels)) == (59, 9, 9)
    (leaking / "qrels" / "train.tsv").unlink()
    given = common.queries_to_align(leaking, common.without_test(read_beir(leaking)))
    assert (given.train, len(given.dev), len(given.dev_qrels)) == ([], 9, 9)


def test_new_encoder(leaking, bert, make_encoder, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    read = []
    fitted = new_encoder.align
    monkeypatch.setattr(
        new_encoder, "align", lambda *given, **named: read.append(named["test"]) or fitted(*given, **named)
    )
    arguments = {"data": leaking, "new": make_encoder("mpnet"), "old": bert, "json": tmp_path / "rows.json"}
    new_encoder.main(**arguments, quick=True)
    rows = rows_of(tmp_path / "rows.json")
    assert [row["method"] for row in rows] == [
        "old encoder",
        "map of queries, passage weight 0",
        "map of queries, passage weight 0.2",
        "map of documents",
        "re-embedding",
    ]
    assert rows[-1]["share_of_reembedding"] == pytest.approx(100)
    assert all(0 <= row["ci_low"] <= row["ndcg@10"] <= row["ci_high"] <= 100 for row in rows)
    assert [ASKED in asked for asked in read] == [True, True]
    monkeypatch.setattr(new_encoder, "rows_of", lambda *_: pytest.fail("a finished row was run again"))
    new_encoder.main(**arguments, quick=True)


def test_update(leaking, bert, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    read = []
    fitted = update.align
    monkeypatch.setattr(update, "align", lambda *given, **named: read.append(named["test"]) or fitted(*given, **named))
    arguments = {"data": leaking, "model": bert, "json": tmp_path / "rows.json", "new": [0.2], "quick": True}
    update.main(**arguments)
    rows = rows_of(tmp_path / "rows.json")
    assert [row["system"] for row in rows] == 2 * ["teacher", "before", "updated", "aligned anew"]
    assert [row["about"] for row in rows[::4]] == ["new documents", "the others"]
    assert rows[0]["queries"] + rows[4]["queries"] == 20
    assert [ASKED in asked for asked in read] == [True, True, True]
    monkeypatch.setattr(update, "rows_of", lambda *_: pytest.fail("a finished row was run again"))
    update.main(**arguments)


def test_dkrr(leaking, tiny, llama, trained_on, tmp_path):
    tiny(dkrr)
    arguments = {"data": leaking, "json": tmp_path / "rows.json", "teacher": ["question"], "reader": llama}
    arguments |= {"dtype": None, "questions": 10, "top_k": 4, "rounds": 1, "epochs": 1, "both": False, "bm25": False}
    dkrr.main(**arguments, quick=True)
    rows = rows_of(tmp_path / "rows.json")
    assert [(row["system"], row["questions"]) for row in rows] == [
        *(("untouched", 0), ("bm25", 0), ("gold", 48), ("gold", 59), ("distilled", 48))
    ]
    assert rows[0]["p"] is None
    assert all(0 < row["p"] <= 1 for row in rows[1:])
    assert trained_on
    assert ASKED.lower() not in trained_on


def test_dkrr_tells_of_which_gap_a_share_is():
    row = {"data": "d", "student": "6 layers", "update": "query", "p": 0.5}
    rows = [
        row | {"system": "untouched", "update": "none", "questions": 0, "ndcg@10": 0.5},
        row | {"system": "gold", "questions": 100, "ndcg@10": 0.6, "p": 0.01},
        row | {"system": "gold", "questions": 400, "ndcg@10": 0.7, "p": 0.01},
        row | {"system": "distilled", "questions": 100, "ndcg@10": 0.55},
    ]
    dkrr.add_shares(rows)
    assert rows[3]["share_of_gap"] == pytest.approx(0.5)
    assert rows[3]["share_of_whole_gap"] == pytest.approx(0.25)
    assert (rows[3]["gap_of"], rows[3]["whole_gap_of"]) == ("gold, 100 questions", "gold, 400 questions")
    assert "share_of_gap" not in rows[0]
    rows[1]["p"] = 0.2
    dkrr.add_shares(rows)
    assert rows[3]["share_of_gap"] is None, "nobody knows whether there is a gap"
    assert rows[3]["gap"] == pytest.approx(0.1)


def test_the_table_of_dkrr_learns_no_test_question(leaking, tiny, llama, trained_on):
    tiny(dkrr)
    dkrr.aligned(dkrr.Bench(leaking, None, 4, 1, labels.NamedReader(llama)), 0)
    assert len([text for text in trained_on if text.endswith("?")]) == 59
    assert ASKED.lower() not in trained_on


def test_losses(leaking, tiny, llama, trained_on, tmp_path):
    tiny(dkrr, losses)
    arguments = {"teacher": "question", "reader": llama, "dtype": None, "questions": 10, "top_k": 4, "epochs": 1}
    losses.main(leaking, json=tmp_path / "rows.json", **arguments, split="dev", quick=True)
    assert len(rows_of(tmp_path / "rows.json")) == 3
    assert trained_on
    assert ASKED.lower() not in trained_on


def test_cold_start(leaking, tiny, llama, trained_on, tmp_path, monkeypatch):
    """Random models write nothing that filters let through: what is generated is written here."""
    tiny(cold_start)
    every = cold_start.filter_sets
    monkeypatch.setattr(cold_start, "filter_sets", lambda find: {"none": every(find)["none"]})

    def write(documents, *_):
        documents = dict(list(documents.items())[:40])
        texts = [*(text.split(".")[0].lower() + "?" for text in documents.values()), ASKED]
        ids = [*documents, next(iter(documents))]
        return [
            cold_start.Candidate(key, (documents[key],), text, 0, "hand", -1.0)
            for key, text in zip(ids, texts, strict=True)
        ], 1.0

    monkeypatch.setattr(cold_start, "write_questions", write)
    arguments = {"reader": llama, "documents": 12, "n": 1, "epochs": 1, "quick": True}
    cold_start.main(leaking, json=tmp_path / "rows.json", **arguments)
    rows = rows_of(tmp_path / "rows.json")
    assert [row["system"] for row in rows[:2]] == ["untouched", "gold"]
    assert [row["filters"] for row in rows[2:]] == ["none"]
    assert trained_on
    assert ASKED.lower() not in trained_on


def test_asymmetric(leaking, tiny, trained_on, tmp_path):
    bert = tiny(asymmetric)
    asymmetric.main(leaking, tmp_path / "rows.json", quick=True, depths="1", epochs=1, teacher=bert)
    assert len(rows_of(tmp_path / "rows.json")) == 1
    assert trained_on
    assert ASKED.lower() not in trained_on


def test_kale_limits(leaking, tiny, trained_on, tmp_path, monkeypatch):
    bert = tiny(kale_limits)
    shutil.copytree(leaking, leaking.with_name("amazon"))
    here = tmp_path / "by hand"
    here.mkdir()
    (here / "paraphrases.jsonl").write_text('{"_id": "q71", "text": "river bridge stone winter market"}\n')
    pair = {"query": "river", "right": "river bridge", "wrong": "market garden"}
    lines = [json.dumps({"kind": kind, **pair}) for kind in ("order", "negation")]
    (here / "minimal_pairs.jsonl").write_text("\n".join(lines) + "\n")
    monkeypatch.setattr(kale_limits, "HERE", here)
    monkeypatch.setattr(kale_limits, "with_unknown_words", lambda *_: ["q72"])
    kale_limits.main(tmp_path, json=tmp_path / "rows.json", teacher=bert, quick=True, passage_weight=0.2)
    assert len(rows_of(tmp_path / "rows.json")) == 10
    assert ASKED.lower() not in trained_on


def test_labels_choose_no_heads_on_a_test_question(leaking, tiny):
    bert = tiny(labels)
    chosen = labels.candidates(leaking, "train", 32, bert, to_choose_heads=True)
    asked = labels.candidates(leaking, "dev", 32, bert)
    assert chosen
    assert ASKED.lower() not in {row.query.strip().lower() for row, _ in [*chosen, *asked]}


def test_labels_are_found_again_unless_what_they_depend_on_changed(leaking, tiny, llama, monkeypatch):
    tiny(dkrr)
    bench = dkrr.Bench(leaking, None, 4, 1, labels.NamedReader(llama))
    rows = bench.training_rows(bench.searched(bench.encoder.model, ["q1", "q2"], bench.index, 4))
    first, _ = labels.labelled(rows, "question", bench.reader, source="here")
    again, _ = labels.labelled(rows, "question", labels.NamedReader(llama), source="here")
    assert again.folder == first.folder
    other, _ = labels.labelled(rows, "question", labels.NamedReader(llama, "bfloat16"), source="here")
    assert other.folder != first.folder, "precision"
    reader, signal = labels.NamedReader(llama), labels.SIGNALS["question"]
    prompts = {kind: replace(prompt, text=f"{prompt.text} Please.") for kind, prompt in signal.prompts.items()}
    monkeypatch.setitem(labels.SIGNALS, "question", replace(signal, prompts=prompts))
    worded, _ = labels.labelled(rows, "question", reader, source="here")
    assert worded.folder not in {first.folder, other.folder}, "prompt"


def test_g2r(llama, tiny, tmp_path, monkeypatch):
    """Random models write nothing that can be read: what is generated is written here."""
    folder = tmp_path / "dialogues"
    folder.mkdir()
    for seed, split in enumerate(("train", "test")):
        lines = [{"_id": f"{split}{number}", "turns": sentences(4, 100 * seed + number)} for number in range(40)]
        (folder / f"{split}.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    responses = tmp_path / "responses.jsonl"
    turns = [json.loads(line)["turns"] for line in (folder / "train.jsonl").read_text().splitlines()]
    made = sentences(80, 7)
    lines = [
        {
            "_id": f"t{number}-1",
            "context": said[:1],
            "responses": [
                {"text": said[1], "generated": False},
                *({"text": text, "generated": True} for text in made[2 * number : 2 * number + 2]),
            ],
        }
        for number, said in enumerate(turns)
    ]
    responses.write_text("".join(json.dumps(line) + "\n" for line in lines))
    monkeypatch.setattr(g2r.Bench, "_generated", lambda _: str(responses))
    monkeypatch.chdir(tmp_path)
    unset = ("contexts", "replies", "negatives", "test", "judged", "responses", "epochs", "history", "dtype")
    arguments = {**dict.fromkeys(unset), "generator": llama, "encoder": tiny(g2r)}
    systems = ["human", "untouched", "dialogues", "data", "data+similarity", "data+control", "data-layers-0"]
    judge = [f"other={llama}"]
    g2r.main(folder, tmp_path / "rows.json", quick=True, system=systems, judge=judge, **arguments)
    rows = rows_of(tmp_path / "rows.json")
    assert [row["system"] for row in rows] == systems
    assert all(row["generator_ms"] > 0 and row["runtime"] == "transformers" for row in rows[1:])
    assert all(row["judge:other_low"] <= row["judge:other_gain"] <= row["judge:other_high"] for row in rows[2:])
    test = [turn for line in (folder / "test.jsonl").read_text().splitlines() for turn in json.loads(line)["turns"]]
    assert not {row["reply"] for row in map(json.loads, next(tmp_path.rglob("data.jsonl")).open())} & set(test)


def test_reply_labels(llama, bert, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    made = iter(sentences(300, 7))

    def written(_, __, some, count):
        """Random models write nothing that can be read."""
        return {one.id: [next(made) for _ in range(count)] for one in some}

    monkeypatch.setattr(reply_labels, "written_by", written)
    folder = tmp_path / "dialogues"
    folder.mkdir()
    lines = [{"_id": f"d{number}", "turns": sentences(3, number)} for number in range(12)]
    (folder / "dev.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    arguments = {"generator": llama, "encoder": bert, "dtype": None, "judge": [f"other={llama}"]}
    for _ in range(2):  # a table that is there is not made again
        reply_labels.main(folder, tmp_path / "rows.json", quick=True, **arguments)
    rows = {row["label"]: row for row in rows_of(tmp_path / "rows.json")}
    likelihoods = ("response", "mi", "pmi")
    assert list(rows) == ["retriever", "similarity to 3", *likelihoods, *(f"other {one}" for one in likelihoods)]
    assert all(rows[one]["pairs"] == rows[f"other {one}"]["pairs"] for one in likelihoods), "it is the same model"


@pytest.fixture
def serving(leaking, tiny, tmp_path, monkeypatch):
    """Gives serving benchmarks, with one backend of each kind and few vectors, and runs them."""
    for module in ("fastembed", "model2vec", "haystack_integrations.document_stores.faiss"):
        pytest.importorskip(module, reason=f"{module} is not installed: it comes with the `bench` extra")
    parts, served = import_module("benchmarks.serving_parts"), import_module("benchmarks.serving")
    monkeypatch.setattr("haystack_distill.serving.export.MIN_SHARE", 0.0)  # random encoders lose more at int8
    monkeypatch.setattr(parts, "EXPORTS", ("onnx-fp32", "onnx-int8"))
    monkeypatch.setattr(served, "BACKENDS", [("torch", "fp32"), ("onnx", "fp32"), ("onnx", "int8")])
    monkeypatch.setattr(parts, "many_documents", few(parts.many_documents))
    few_queries = served.short_queries

    def run(name):
        bench = import_module(f"benchmarks.{name}")
        tiny(parts, bench)
        monkeypatch.setattr(bench, "short_queries", lambda *given: few_queries(*given)[:4])
        file = tmp_path / f"{name}.json"
        bench.main(leaking.parent.parent, json=file, quick=True)
        return rows_of(file)

    return run


def test_serving(serving, trained_on):
    rows = serving("serving")
    assert {row["row"] for row in rows} >= {"teacher", "layers-2", "layers-0", "path-uncut", "concurrent-layers-0"}
    assert trained_on
    assert ASKED.lower() not in trained_on
    parts = {row["part"] for row in serving("serving_profile")}  # of the students that are there
    assert {"whole component", "FAISS alone", "until its first vector, token table"} <= parts


def test_serving_over_http(serving):
    if shutil.which("wrk") is None:
        pytest.skip("wrk, which makes the load, is not installed")
    assert serving("serving_http")


def few(many):
    return lambda index, count: many(index, min(count, 100))
