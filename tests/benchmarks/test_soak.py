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
    """A retriever that keeps some bytes of every query, beside what it fills at the beginning."""

    def __init__(self, size):
        self.size, self.asked = size, 0

    def run(self, query):
        self.asked += 1
        return {"documents": [Document(content=query)] * 10}

    def memory(self):
        return 100 + min(self.asked, 300) + self.asked * self.size / 2**20


@pytest.mark.parametrize("size", [0, 50])
def test_a_leak_is_told_from_pools_that_fill(size, monkeypatch):
    keeps = Keeps(size)
    monkeypatch.setattr(soak, "own_memory", keeps.memory)
    row = soak.soaked(keeps, sentences(50, seed=3), 2000)
    assert row["bytes_a_query"] == pytest.approx(size, abs=1e-6)
    assert row["end_mib"] == pytest.approx(400 + 2000 * size / 2**20)
