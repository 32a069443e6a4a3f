"""
A load test over HTTP: the stock query pipeline and distilled ones under hayhooks, asked by sixteen clients of wrk.

    apt install wrk
    pip install 'haystack-distill[bench]' && pip install --no-deps faiss-haystack
    python -m benchmarks.serving_http --data FOLDER [--json FILE] [--quick]

All pipelines are deployed on one server on loopback, over one FAISS HNSW index, and asked in turn: first as they are,
then after `gc.freeze()`, which tells Python's garbage collector to leave alone what is loaded by then; the store's
documents above all. Client and server share the processor, as they do not in production. Uses the students of
`benchmarks.serving`.
"""

import os
import re
import shutil
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from json import dumps
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
import yaml
from haystack_integrations.components.retrievers.faiss import FAISSEmbeddingRetriever
from haystack_integrations.document_stores.faiss import FAISSDocumentStore

from benchmarks.common import load_teacher, minilm, open_corpus, print_rows, write_rows
from benchmarks.serving import CLIENTS, short_queries
from benchmarks.serving_parts import HOME, WORK, many_documents, prepared
from haystack_distill import DistilledRetriever, KaleQueryEncoder

SERVER = """
import gc, sys, threading
from hayhooks.cli import hayhooks_cli
threading.Thread(target=lambda: sys.stdin.read() or gc.freeze(), daemon=True).start()
hayhooks_cli()
"""
"""hayhooks, which freezes the garbage collector's objects when its standard input is closed."""

COLUMNS = (
    ("pipeline", "row", ""),
    ("garbage collector", "collector", ""),
    ("requests/s", "requests_per_second", ".0f"),
    ("p50 ms", "p50_ms", ".1f"),
    ("p99 ms", "p99_ms", ".1f"),
    ("times the throughput", "speedup", ".1f"),
)


def main(
    data: Annotated[Path, typer.Option(help="The folder that holds the BEIR folders.")],
    json: Annotated[Path | None, typer.Option(help="Write the rows to this file.")] = None,
    quick: Annotated[bool, typer.Option(help="1,000 documents and one second a pipeline.")] = False,
) -> None:
    """Print the table."""
    wrk = shutil.which("wrk")
    if wrk is None:
        raise typer.BadParameter("The load is made by wrk, which is not installed (apt install wrk).")  # noqa: EM101
    teacher = load_teacher(minilm())
    corpus, index = open_corpus(data / HOME, teacher)
    models = prepared(data / HOME, teacher, index, quick=quick)
    queries = short_queries(teacher, corpus, 100)
    place = (WORK / "http").resolve()
    shutil.rmtree(place, ignore_errors=True)
    place.mkdir(parents=True)
    store = FAISSDocumentStore(index_path=str(place / "index"), index_string="HNSW32,Flat", embedding_dim=index.dim)
    store.write_documents(many_documents(index, 1000 if quick else 20_000))
    store.save(place / "index")
    port = _free_port()
    pipelines = _pipelines(models, store)
    with subprocess.Popen(
        [sys.executable, "-c", SERVER, "run", "--port", str(port)],
        env={**os.environ, "HAYHOOKS_PIPELINES_DIR": str(place / "served"), "LOG": "WARNING"},
        stdin=subprocess.PIPE,
        stdout=(place / "server.log").open("w"),
        stderr=subprocess.STDOUT,
    ) as server:
        try:
            _wait(f"http://127.0.0.1:{port}/status")
            for name, content in pipelines.items():
                _post(f"http://127.0.0.1:{port}/deploy-yaml", {"name": name, "source_code": content})
                _post(f"http://127.0.0.1:{port}/{name}/run", {"query": queries[0]})
            seconds = 1 if quick else 5
            rows = _load(wrk, port, list(pipelines), queries, place, seconds, "as it is")
            server.stdin.close()
            time.sleep(1)
            rows += _load(wrk, port, list(pipelines), queries, place, seconds, "frozen")
        finally:
            server.terminate()
    write_rows(json, rows)
    print_rows(rows, COLUMNS, f"{CLIENTS} clients over HTTP, hayhooks, FAISS HNSW, ten documents a query")


def _pipelines(models: dict[str, Path], store: FAISSDocumentStore) -> dict[str, str]:
    """YAML by name: what a team has, and ours with each student."""
    retriever = FAISSEmbeddingRetriever(document_store=store, top_k=10).to_dict()
    stock = {
        "components": {
            "embedder": {
                "type": "haystack_integrations.components.embedders.sentence_transformers"
                ".sentence_transformers_text_embedder.SentenceTransformersTextEmbedder",
                "init_parameters": {"model": minilm(), "progress_bar": False, "local_files_only": True},
            },
            "retriever": retriever,
        },
        "connections": [{"sender": "embedder.embedding", "receiver": "retriever.query_embedding"}],
        "inputs": {"query": ["embedder.text"]},
        "outputs": {"documents": "retriever.documents"},
    }
    found = {"teacher": yaml.safe_dump(stock)}
    for name in ("layers-2", "layers-0"):
        encoder = KaleQueryEncoder(str(models[name].resolve()))
        component = DistilledRetriever(
            query_encoder=encoder, retriever=FAISSEmbeddingRetriever(document_store=store, top_k=10)
        )
        distilled = {
            "components": {"retriever": component.to_dict()},
            "connections": [],
            "inputs": {"query": ["retriever.query"]},
            "outputs": {"documents": "retriever.documents"},
        }
        found[name] = yaml.safe_dump(distilled)
    return found


def _load(
    wrk: str, port: int, names: list[str], queries: list[str], place: Path, seconds: int, collector: str
) -> list[dict[str, Any]]:
    bodies = ", ".join(dumps(dumps({"query": query})) for query in queries)
    script = place / "ask.lua"
    script.write_text(
        f"local bodies = {{{bodies}}}\nlocal at = 0\n"
        "request = function()\n  at = at % #bodies + 1\n"
        '  return wrk.format("POST", nil, {["Content-Type"] = "application/json"}, bodies[at])\nend\n'
        "done = function(summary, latency)\n"
        '  io.write(string.format("FIGURES %f %f %f %d\\n", summary.requests / summary.duration * 1e6,\n'
        "    latency:percentile(50) / 1000, latency:percentile(99) / 1000, summary.errors.status))\nend\n"
    )
    figures: dict[str, list[list[float]]] = {name: [] for name in names}
    for _ in range(3):
        for name in names:
            command = [wrk, "-t1", f"-c{CLIENTS}", f"-d{seconds}s", "-s", str(script)]
            done = subprocess.run(
                [*command, f"http://127.0.0.1:{port}/{name}/run"], capture_output=True, text=True, check=True
            )
            rate, p50, p99, errors = map(float, re.findall(r"FIGURES (.*)", done.stdout)[0].split())
            if errors:
                msg = f"{errors:.0f} requests to {name} failed: see {place / 'server.log'}."
                raise RuntimeError(msg)
            figures[name].append([rate, p50, p99])
    medians = {name: np.median(values, axis=0) for name, values in figures.items()}
    return [
        {
            "row": f"http-{name}",
            "collector": collector,
            "requests_per_second": float(rate),
            "p50_ms": float(p50),
            "p99_ms": float(p99),
            "speedup": float(rate / medians["teacher"][0]),
        }
        for name, (rate, p50, p99) in medians.items()
    ]


def _free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


def _wait(url: str) -> None:
    for _ in range(120):
        try:
            urllib.request.urlopen(url, timeout=2)  # noqa: S310 - loopback
        except (urllib.error.URLError, ConnectionError, TimeoutError):
            time.sleep(1)
        else:
            return
    msg = f"The server did not answer at {url} within two minutes."
    raise TimeoutError(msg)


def _post(url: str, content: dict[str, Any]) -> None:
    request = urllib.request.Request(  # noqa: S310 - loopback
        url, data=dumps(content).encode(), headers={"Content-Type": "application/json"}
    )
    with urllib.request.urlopen(request, timeout=300) as answer:  # noqa: S310
        answer.read()


if __name__ == "__main__":
    typer.run(main)
