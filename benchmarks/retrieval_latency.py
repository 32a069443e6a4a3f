"""
How long a row of `benchmarks.retrieval` takes from a query's text to its ten documents.

One query at a time, one thread, all systems in turn. Every query encoder, the uncut one too, runs on the fastest of its
ONNX exports (fp32, and int8 where that keeps 99 % of dev nDCG@10), a token table on numpy. Search is exact, by numpy,
so that all systems recover the whole of their exact top ten; at these sizes it takes 0.1 ms. A hybrid asks both sides
for 100 candidates. `served_ndcg@10` is the quality of the very path that is timed, `megabytes` the size of what it
loads besides the vectors.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from threadpoolctl import threadpool_limits

from benchmarks.joining import FUSIONS, Candidates
from benchmarks.retrieval_rows import Rows
from benchmarks.retrieval_systems import Bench, System
from haystack_distill.evaluation.dev_set import read_dev_set
from haystack_distill.evaluation.quality import DEPTH, latencies, measure
from haystack_distill.serving.export import export
from haystack_distill.serving.exports import GRAPH, WEIGHTS
from haystack_distill.serving.opening import open_encoder
from haystack_distill.serving.token_table import STATIC, is_table, module_folders

QUERIES, ROUNDS, TOP = 100, 3, 10


class Served(NamedTuple):
    """A system as it is served: how it is asked for so many documents, what it loads, and on what it runs."""

    ask: Callable[[str, int], Candidates]
    megabytes: float
    backend: str


def add_latencies(bench: Bench, rows: list[dict[str, Any]], kept: Rows) -> list[dict[str, Any]]:
    """
    Time rows, and keep them with their figures.

    :param bench: The corpus.
    :param rows: Rows of this corpus; those of a reader keep no latency, since they would take hours.
    :param kept: Where rows are kept.
    :returns: The rows.
    """
    torch.set_num_threads(1)
    texts = [bench.queries[query_id] for query_id in bench.test]
    some = texts[:: max(1, len(texts) // QUERIES)][:QUERIES]
    with threadpool_limits(1):
        timed_rows = [row for row in rows if not row["system"].startswith("reader")]
        alone = {key: _alone(bench, *key) for key in dict.fromkeys([("bm25", ""), *map(_system_of, timed_rows)])}
        paths = {row["key"]: _path(row, alone) for row in timed_rows}
        asks = {key: (lambda text, ask=path.ask: ask(text, TOP)) for key, path in paths.items()}
        timed = latencies(asks, some, rounds=1 if bench.quick else ROUNDS)
        served = {
            key: measure({one: path.ask(bench.queries[one], TOP) for one in bench.test}, bench.test).mean()
            for key, path in paths.items()
        }
    for key, path in paths.items():
        figures = {"ms": float(np.median(timed[key])), "p99_ms": float(np.percentile(timed[key], 99))}
        figures |= {"megabytes": path.megabytes, "backend": path.backend, "search": "exact, numpy"}
        kept.add(key, kept[key] | figures | {"served_ndcg@10": served[key]})
    return [kept[row["key"]] for row in rows]


def _system_of(row: dict[str, Any]) -> System:
    return row["system"].partition("+")[0], row["side"]


def _path(row: dict[str, Any], alone: dict[System, Served]) -> Served:
    """From a query's text to documents, as a row's system does it."""
    way = row["system"].partition("+")[2]
    words, dense = alone["bm25", ""], alone[_system_of(row)]
    if not way:
        return dense
    join, weight = FUSIONS[way].join, row["weight"]

    def ask(text: str, top: int) -> Candidates:
        return dict(list(join(words.ask(text, DEPTH), dense.ask(text, DEPTH), weight).items())[:top])

    return Served(ask, words.megabytes + dense.megabytes, dense.backend)


def _alone(bench: Bench, name: str, side: str) -> Served:
    if name == "bm25":
        ranker = bench.ranker(name, side)
        return Served(lambda text, top: ranker.rank([text], top)[0], ranker.megabytes or 0.0, "bm25s")
    return _encoder(bench, name, side)


def _encoder(bench: Bench, name: str, side: str) -> Served:
    """A query encoder on its fastest backend, and exact search."""
    give_folder = bench.ranker(name, side).model
    assert give_folder is not None, name
    folder = give_folder()
    encoder, backend = _opened(folder)
    ids, vectors = bench.index.ids, np.ascontiguousarray(bench.index.ranking_vectors)

    def ask(text: str, top: int) -> Candidates:
        scores = vectors @ encoder.encode(text)
        best = np.argpartition(-scores, min(top, len(ids)) - 1)[:top]
        return {ids[row]: float(scores[row]) for row in best[np.argsort(-scores[best])]}

    return Served(ask, _megabytes(folder, backend), backend)


def _opened(folder: Path) -> tuple[Any, str]:
    """The fastest encoder of a folder, exported first where there are no exports, and what it runs on."""
    if is_table(folder):
        return open_encoder(folder), "numpy"
    for precision in ("fp32", "int8"):
        if not (folder / f"onnx-{precision}").exists():
            try:
                export(folder, "onnx", precision, read_dev_set(folder))
            except ValueError:  # it loses too much quality
                continue
    encoder = open_encoder(folder)
    return encoder, encoder.name


def _megabytes(folder: Path, backend: str) -> float:
    """Of the file with the weights."""
    if backend == "numpy":
        return (module_folders(folder)[STATIC] / WEIGHTS).stat().st_size / 1e6
    graph = folder / backend / GRAPH
    return (graph if graph.exists() else folder / WEIGHTS).stat().st_size / 1e6
