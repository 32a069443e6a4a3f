"""The demo and the benchmarks: what they are made of, and that their code runs; never how fast."""

import inspect
import json
import re
from importlib import import_module
from pathlib import Path

import pytest

from benchmarks import common, kale
from benchmarks.kale_limits import HERE, preference, shuffled
from demo.questions import write_questions
from haystack_distill.data.beir import read_beir
from haystack_distill.evaluation.comparison import System, teacher_system
from haystack_distill.students.bi_encoder import BiEncoder
from tests.benchmarks.conftest import ASKED

SERVING = ("serving", "serving_http", "serving_profile")
BENCHMARKS = (
    "asymmetric",
    "cascade",
    "cold_start",
    "dkrr",
    "faults",
    "g2r",
    "kale",
    "kale_limits",
    "labels",
    "losses",
    "new_encoder",
    "reply_labels",
    "retrieval",
    "scale",
    *SERVING,
    "soak",
    "stores",
    "teachers",
    "update",
)


@pytest.mark.parametrize("name", BENCHMARKS)
def test_every_benchmark_can_be_started(name):
    if name in {*SERVING, "scale"}:
        pytest.importorskip("fastembed", reason="the `bench` extra is not installed")
        pytest.importorskip("haystack_integrations.document_stores.faiss", reason="faiss-haystack is not installed")
    parameters = inspect.signature(import_module(f"benchmarks.{name}").main).parameters
    assert {"json", "quick"} <= parameters.keys()


def test_the_questions_have_their_passages_in_this_python(tmp_path):
    """Phrases, not ids, name the gold passages, so that other versions of Python find them too."""
    assert write_questions(tmp_path / "questions") >= 120
    data = read_beir(tmp_path / "questions")
    assert len(data.qrels["test"]) == len(data.queries) == len(set(data.queries.values()))
    assert 2000 < len(data.documents) < 8000


def test_no_question_is_copied_from_its_passage():
    """They were written by hand in other words: at most six words in a row may be the same."""
    for line in (Path(common.__file__).parent.parent / "demo" / "questions.jsonl").read_text().splitlines():
        question = json.loads(line)
        words = re.findall(r"\w+", question["text"].lower())
        for gold in question["gold"]:
            phrase = " ".join(re.findall(r"\w+", gold["phrase"].lower()))
            runs = [" ".join(words[start : start + 7]) for start in range(len(words) - 6)]
            assert not any(run in phrase for run in runs), question["_id"]


def test_the_kale_benchmark_runs_and_goes_on_where_it_was(leaking, trained_on, bert, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    rows_file = tmp_path / "rows.json"
    arguments = {"data": leaking.parent, "json": rows_file, "corpus": [leaking.name], "layers": [0, 1], "teacher": bert}
    kale.main(**arguments, quick=True, paper=True)
    rows = json.loads(rows_file.read_text())
    assert [(row["system"], row["text"]) for row in rows if row["system"] != "cut only, 1"] == [
        ("teacher", "none"),
        ("cut only, 0", "none"),
        ("ours, 0", "train queries + index"),
        ("ours, 0", "index alone"),
        ("KALE as published, 1", "train queries"),
        ("ours, 1", "train queries + index"),
        ("ours, 1", "index alone"),
    ]
    cuts = [row["kept"] for row in rows if row["system"] == "cut only, 1"]
    assert cuts[0] == "0" == rows[5]["kept"]
    assert sorted(cuts) == sorted({row["kept"] for row in rows if row["layers"] == 1 and row["text"] != "none"})
    assert all(row["encode_ms"] > 0 for row in rows)
    assert rows[0]["share"] == 100
    assert len([text for text in trained_on if text.endswith("?")]) == 59
    assert ASKED.lower() not in trained_on
    monkeypatch.setattr(kale, "rows_of", lambda *_: pytest.fail("a finished row was run again"))
    kale.main(**arguments, quick=True, paper=True)


def test_the_cache_of_vectors_goes_on_where_it_was_stopped(bert, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(common, "SHARD", 100)
    encoder = common.load_teacher(bert)
    texts = [f"passage {number} is about {'more ' * (number % 7)}numbers" for number in range(249)]
    texts.append(texts[0])
    plain = encoder.model.encode(texts)
    embedded: list[str] = []

    def embed(self, texts, *rest):
        if len(embedded) + len(texts) > stop_after:
            raise KeyboardInterrupt
        embedded.extend(texts)
        return once(self, texts, *rest)

    once = BiEncoder._encode
    monkeypatch.setattr(BiEncoder, "_encode", embed)
    stop_after = 150
    with pytest.raises(KeyboardInterrupt):
        encoder.encode_documents(texts)
    stop_after = 249
    for _ in range(2):
        assert encoder.encode_documents(texts) == pytest.approx(plain, abs=1e-5)
        assert sorted(embedded) == sorted(set(texts))


def test_pairs_are_judged_by_the_nearer_passage(minilm):
    encoder = common.load_teacher(minilm)
    pairs = [{"query": "open a file", "right": "open(path) opens a file", "wrong": "a recipe for pancakes"}] * 2
    blind = System("blind", lambda texts: encoder.encode_queries(["same"] * len(texts)) * 0, 0)
    row = preference("order", [teacher_system(encoder), blind], encoder, pairs)
    assert (row["teacher"], row["blind"]) == (1.0, 50.0)


def test_what_was_written_by_hand_is_complete():
    pairs = [json.loads(line) for line in (HERE / "minimal_pairs.jsonl").read_text().splitlines()]
    assert {pair["kind"] for pair in pairs} == {"order", "negation"}
    assert all(pair["right"] != pair["wrong"] for pair in pairs)
    texts = {"q": "one two three four five six"}
    assert sorted(shuffled(texts)["q"].split()) == sorted(texts["q"].split())
    assert shuffled(texts) != texts
