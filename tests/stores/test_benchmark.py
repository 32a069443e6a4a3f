"""The benchmark of the stores: that its code runs on each; never how fast."""

from pathlib import Path

import pytest

from benchmarks import stores
from tests.conftest import sentences

NEEDS = {
    "faiss": ["haystack_integrations.document_stores.faiss"],
    "qdrant": ["haystack_integrations.document_stores.qdrant"],
    "pgvector": ["haystack_integrations.document_stores.pgvector", "pgserver"],
    "chroma": ["haystack_integrations.document_stores.chroma"],
    "milvus": ["milvus_haystack", "milvus_lite"],
    "milvus_server": ["milvus_haystack", "milvus"],
}


@pytest.mark.parametrize("name", stores.SIZES)
def test_a_row_of_the_table(name, bert, servers, tmp_path, monkeypatch):
    for module in NEEDS.get(name, []):
        pytest.importorskip(module)
    if name == "milvus_server":
        monkeypatch.setenv("MILVUS_URI", servers("milvus"))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(stores, "minilm", lambda: bert)
    monkeypatch.setattr(stores, "python_documentation", lambda: [("", text) for text in sentences(60)])
    monkeypatch.setattr(stores, "DIM", 32)
    monkeypatch.setattr(stores, "BATCH", 100)
    monkeypatch.setattr(stores, "TABLE", Path(bert))
    row = stores.measure(name, 250)
    assert (row["store"], row["n"], row["held"]) == (name, 250, 250)
    assert {"version", "view_seconds", "view_mib", "query_ms", "peak_mib"} <= row.keys()
    assert ("align_seconds" in row) == (name in stores.ALIGNED)
