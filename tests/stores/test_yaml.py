"""A pipeline over every store, written as YAML, loads and retrieves in a fresh process."""

import json
import os
import subprocess
import sys
from pathlib import Path

from haystack import Pipeline

from haystack_distill import DistilledRetriever, KaleQueryEncoder

ROOT = Path(__file__).parents[2]
SCRIPT = """
import json, sys
from haystack import Pipeline
found = Pipeline.loads(open(sys.argv[1]).read()).run({"query": sys.argv[2]})["retriever"]["documents"]
print(json.dumps([[one.id, one.content, one.meta] for one in found]))
"""
QUERY = "river bridge stone winter"


def test_a_round_trip_through_yaml(backend, opener, documents, bert, tmp_path):
    store = opener(documents)
    if backend.name == "faiss":
        store.save(store.index_path)
    pipeline = Pipeline()
    retriever = DistilledRetriever(
        retriever=backend.retriever_of(store), query_encoder=KaleQueryEncoder(model=bert), top_k=5
    )
    pipeline.add_component("retriever", retriever)
    expected = [[one.id, one.content, one.meta] for one in retriever.run(query=QUERY)["documents"]]
    text = pipeline.dumps()
    close(store)
    (tmp_path / "query.yaml").write_text(text)
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    if backend.name.startswith("milvus"):  # it is outside of Haystack's own packages, so it must be allowed by name
        environment["HAYSTACK_DESERIALIZATION_ALLOWLIST"] = "milvus_haystack"
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, str(tmp_path / "query.yaml"), QUERY],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env=environment,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    # What was only in memory is gone with its process.
    assert json.loads(done.stdout.splitlines()[-1]) == ([] if backend.name == "in_memory" else expected)


def close(store) -> None:
    """Embedded stores lock their files."""
    if hasattr(store, "close"):
        store.close()
    elif hasattr(store, "client"):
        from milvus_lite.server_manager import server_manager_instance

        server_manager_instance.release_all()
