"""
From a query to its vector and to its documents: what cutting gains, what the backend gains, and both together.

    pip install 'haystack-distill[bench]' && pip install --no-deps faiss-haystack
    python -m benchmarks.serving --data FOLDER [--json FILE] [--quick]

Students of two, one and no layers are aligned with new_wiki once and kept under benchmark_output/serving. Everything is
timed in one process, in turn, one query of 8 to 16 tokens at a time; `ndcg@10` is that of the very encoder that is
timed, on the test split. `speedup` is against the stock embedder with the teacher, `speedup_same_backend` against the
uncut teacher on the same backend, precision and threads.
"""

import asyncio
import time
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
import typer

from benchmarks.common import CachedTeacher, load_teacher, minilm, open_corpus, print_rows, write_rows
from benchmarks.serving_parts import (
    HOME,
    path_pipelines,
    peer_encoders,
    prepared,
    stock_embedder,
)
from haystack_distill.data.beir import BeirFolder
from haystack_distill.data.index import IndexView
from haystack_distill.evaluation.quality import latencies, measure, search
from haystack_distill.serving.encoder import Encoder
from haystack_distill.serving.opening import open_encoder

CLIENTS = 16
BACKENDS = [(backend, precision) for backend in ("torch", "onnx", "openvino") for precision in ("fp32", "int8")]
COLUMNS = (
    ("row", "row", ""),
    ("backend", "backend", ""),
    ("precision", "precision", ""),
    ("threads", "threads", ""),
    ("ms", "ms", ".3f"),
    ("p99 ms", "p99_ms", ".3f"),
    ("speed-up", "speedup", ".1f"),
    ("in its backend", "speedup_same_backend", ".1f"),
    ("nDCG@10", "ndcg@10", ".3f"),
)
Row = dict[str, Any]
Key = tuple[str, str, str]
"""Row, backend, precision."""

STOCK: Key = ("teacher", "haystack", "fp32")


def main(
    data: Annotated[Path, typer.Option(help="The folder that holds the BEIR folders.")],
    json: Annotated[Path | None, typer.Option(help="Write the rows to this file.")] = None,
    quick: Annotated[bool, typer.Option(help="Briefly trained students, one thread, 5,000 vectors, no peers.")] = False,
) -> None:
    """Print the tables."""
    teacher = load_teacher(minilm())
    corpus, index = open_corpus(data / HOME, teacher)
    models = prepared(data / HOME, teacher, index, quick=quick)
    queries = short_queries(teacher, corpus, 30 if quick else 100)
    rows: list[Row] = []
    found = qualities(models, corpus, index)
    for threads in (1,) if quick else (1, 2):
        torch.set_num_threads(threads)
        new = encoder_rows(models, queries, found, threads, peers=not quick and threads == 1)
        rows += new
        write_rows(json, rows)
        print_rows(new, COLUMNS, f"Query to vector, {threads} thread(s)")
    torch.set_num_threads(1)
    fastest = min((row for row in rows if row["row"] == "layers-2"), key=lambda row: row["ms"])
    best = fastest["backend"], fastest["precision"]
    quality = {
        "teacher": found[STOCK],
        "uncut": found["teacher", *best],
        "layers-2": found["layers-2", *best],
        "layers-0": found["layers-0", "numpy", "fp32"],
    }
    pipelines = path_pipelines(models, index, best, vectors=5000 if quick else 100_000)
    for store, systems in pipelines.items():
        rows += path_rows(store, systems, queries, quality)
        write_rows(json, rows)
    rows += asyncio.run(concurrent_rows(pipelines["faiss-hnsw"], queries, quality))
    write_rows(json, rows)
    print_rows([row for row in rows if row["store"]], (*COLUMNS, ("store", "store", "")), "Query to ten documents")


def short_queries(teacher: CachedTeacher, corpus: BeirFolder, count: int) -> list[str]:
    """Test queries of 8 to 16 tokens."""
    texts = [text for text in corpus.texts_of("test") if 8 <= len(teacher.model.tokenizer(text)["input_ids"]) <= 16]
    return texts[:: max(1, len(texts) // count)][:count]


def served(models: dict[str, Path], threads: int) -> dict[Key, Encoder]:
    """Every model on every backend."""
    encoders = {
        (row, backend, precision): open_encoder(model, backend, precision, threads)
        for row, model in models.items()
        if row != "layers-0"
        for backend, precision in BACKENDS
    }
    return {**encoders, ("layers-0", "numpy", "fp32"): open_encoder(models["layers-0"])}


def qualities(models: dict[str, Path], corpus: BeirFolder, index: IndexView) -> dict[Key, float]:
    """nDCG@10 on the test split of every encoder that is timed."""
    qrels = corpus.qrels["test"]
    texts = [corpus.queries[query_id] for query_id in qrels]
    found = {
        key: measure(search(index, list(qrels), encoder.encode_batch(texts)), qrels).mean()
        for key, encoder in served(models, threads=2).items()
    }
    return {**found, STOCK: found["teacher", "torch", "fp32"]}


def encoder_rows(
    models: dict[str, Path], queries: list[str], quality: dict[Key, float], threads: int, *, peers: bool
) -> list[Row]:
    """Every encoder, the stock embedder and peers, in turn."""
    stock = stock_embedder()
    encoders: dict[Key, Callable[[str], Any]] = {STOCK: lambda text: stock.run(text)["embedding"]}
    for key, encoder in served(models, threads).items():
        # What a component returns is a list.
        encoders[key] = lambda text, encode=encoder.encode: encode(text).tolist()
    if peers:
        encoders |= {(name, "peer", "fp32"): encode for name, encode in peer_encoders(models).items()}
    timed = latencies({"|".join(key): encode for key, encode in encoders.items()}, queries)
    medians = {key: float(np.median(timed["|".join(key)])) for key in encoders}
    return [
        {
            "row": key[0],
            "backend": key[1],
            "precision": key[2],
            "threads": threads,
            "ms": medians[key],
            "p99_ms": float(np.percentile(timed["|".join(key)], 99)),
            "speedup": medians[STOCK] / medians[key],
            "speedup_same_backend": _ratio(medians.get(("teacher", *key[1:])), medians[key]),
            "ndcg@10": quality.get(key),
            "store": None,
        }
        for key in encoders
    ]


def _ratio(before: float | None, after: float) -> float | None:
    return None if before is None else before / after


def path_rows(store: str, systems: dict[str, Any], queries: list[str], quality: dict[str, float]) -> list[Row]:
    """Query string to ten documents, all systems in turn."""
    timed = latencies({name: system.ask for name, system in systems.items()}, queries)
    baseline = float(np.median(timed["teacher"]))
    return [
        {
            "row": f"path-{name}",
            "backend": system.backend,
            "precision": system.precision,
            "threads": 1,
            "ms": float(np.median(timed[name])),
            "p99_ms": float(np.percentile(timed[name], 99)),
            "speedup": baseline / float(np.median(timed[name])),
            "speedup_same_backend": None,
            "ndcg@10": quality[name],
            "store": store,
        }
        for name, system in systems.items()
    ]


async def concurrent_rows(systems: dict[str, Any], queries: list[str], quality: dict[str, float]) -> list[Row]:
    """Sixteen clients that ask one query after another: `ms` is wall-clock time by query, `p99_ms` what one waits."""
    rounds: dict[str, list[tuple[float, list[float]]]] = {name: [] for name in systems}
    for _ in range(3):
        for name, system in systems.items():
            rounds[name].append(await _load(system.ask_async, queries))
    cost = {name: float(np.median([one[0] for one in measured])) for name, measured in rounds.items()}
    return [
        {
            "row": f"concurrent-{name}",
            "backend": system.backend,
            "precision": system.precision,
            "threads": 1,
            "ms": cost[name],
            "p99_ms": float(np.median([np.percentile(waits, 99) for _, waits in rounds[name]])),
            "speedup": cost["teacher"] / cost[name],
            "speedup_same_backend": None,
            "ndcg@10": quality[name],
            "store": "faiss-hnsw",
        }
        for name, system in systems.items()
    ]


async def _load(ask: Callable[[str], Any], queries: list[str]) -> tuple[float, list[float]]:
    """Milliseconds a query at full load, and how long each waited."""
    waits: list[float] = []
    todo = iter(queries * 4)

    async def client() -> None:
        for query in todo:
            start = time.perf_counter()
            await ask(query)
            waits.append(1000 * (time.perf_counter() - start))

    start = time.perf_counter()
    await asyncio.gather(*(client() for _ in range(CLIENTS)))
    return 1000 * (time.perf_counter() - start) / len(waits), waits


if __name__ == "__main__":
    typer.run(main)
