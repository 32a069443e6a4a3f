"""The soak runs, and sees a leak where there is one."""

import json

import pytest
from haystack import Document

from tests.conftest import sentences

pytest.importorskip("haystack_integrations.document_stores.faiss", reason="faiss-haystack is not installed")
soak = pytest.importorskip("benchmarks.soak", reason="the `bench` extra is not installed")


def test_it_runs_and_goes_on_where_it_was(beir, bert, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    asked = {"data": beir, "queries": 5, "encoder": bert, "json": tmp_path / "rows.json", "quick": True}
    soak.main(backend=["table"], **asked)
    (row,) = json.loads((tmp_path / "rows.json").read_text())
    assert (row["backend"], row["queries"], row["files_more"]) == ("table", 1000, 0)
    monkeypatch.setattr(soak, "soaked", lambda *_: pytest.fail("a finished row was run again"))
    soak.main(backend=["table"], **asked)


class Keeps:
    """A retriever that keeps some bytes of every query."""

    def __init__(self, size):
        self.size, self.kept = size, []

    def run(self, query):
        self.kept.append(b"x" * self.size)  # written, or the system would not give the memory
        return {"documents": [Document(content=query)] * 10}


def test_a_leak_is_told_from_none():
    texts = sentences(50, seed=3)
    assert soak.soaked(Keeps(50_000), texts, 2000)["bytes_a_query"] == pytest.approx(50_000, rel=0.1)
    assert abs(soak.soaked(Keeps(0), texts, 2000)["bytes_a_query"]) < 5_000
