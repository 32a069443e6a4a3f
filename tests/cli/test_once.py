"""How often a command reads the documents, and how often it loads their encoder."""

import json
from collections import Counter

import pytest

from haystack_distill.data import beir as beir_module
from haystack_distill.students.bi_encoder import BiEncoder
from tests.chat_server import chatting


@pytest.fixture
def counts(monkeypatch):
    """How often each file of JSON lines is read to its end and each encoder loaded, by name."""
    counted = Counter()
    read, load = beir_module.read_json_lines, BiEncoder.load.__func__

    def counted_read(file, *rest):
        counted[file.name if hasattr(file, "name") else str(file)] += 1
        return read(file, *rest)

    def counted_load(cls, name, **settings):
        counted[name] += 1
        return load(cls, name, **settings)

    monkeypatch.setattr(beir_module, "read_json_lines", counted_read)
    monkeypatch.setattr(BiEncoder, "load", classmethod(counted_load))
    return counted


def test_a_folder(beir, counts):
    beir_module.read_beir(beir)
    assert counts["corpus.jsonl"] == 1


def test_align_and_evaluate(beir, bert, counts, command, tmp_path):
    common = ["--model", bert, "--output"]
    code, said = command("align", beir, *common, tmp_path / "table", "--layers", "0", "--epochs", "1")
    assert code == 0, said
    assert (counts["corpus.jsonl"], counts[bert]) == (1, 1)
    counts.clear()
    beir_module._HELD.clear()  # in one process the documents of the first command may still be there
    code, said = command("evaluate", beir, *common, tmp_path / "e", "--student", tmp_path / "table")
    assert code == 0, said
    assert (counts["corpus.jsonl"], counts[bert]) == (1, 1)
    assert json.loads((tmp_path / "e" / "metrics.json").read_text())["queries"] == 20


def test_label(beir, bert, reader_folder, counts, command, tmp_path):
    arguments = ["label", beir, "--reader", reader_folder("llama"), "--model", bert, "--output", tmp_path / "set"]
    code, said = command(*arguments, "--top-k", "3", "--no-progress")
    assert code == 0, said
    assert (counts["corpus.jsonl"], counts[bert]) == (1, 1)
    assert not list(tmp_path.glob(".*")), "a finished set needs no vectors"


def test_distill(beir, bert, counts, command, tmp_path):
    arguments = ["distill", beir, "--model", bert, "--output", tmp_path / "out", "--no-judged", "--no-progress"]
    code, said = command(*arguments, "--epochs", "1", "--top-k", "4", "--batch-size", "8")
    assert code == 0, said
    assert counts["corpus.jsonl"] == 1
    assert counts[bert] == 2, "one embeds documents, and one is saved as round-0 with what the index was made with"


def test_augment(beir, counts, command, tmp_path):
    with chatting() as (_, url):
        arguments = ["augment", beir, "--output", tmp_path / "q", "--model", "m", "--api-base-url", url, "--n", "1"]
        code, said = command(*arguments, "--retriever", "bm25", "--no-progress")
    assert code == 0, said
    assert counts["corpus.jsonl"] == 1
