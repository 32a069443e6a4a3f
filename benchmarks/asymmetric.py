"""
Dual encoders of different depth, trained together: the grid of the KALE paper (arXiv 2304.01016, section 3).

    python -m benchmarks.asymmetric --data BEIR_FOLDER [--json FILE] [--quick] [--depths 6,3,2,1]

Every pair of depths is cut from one bi-encoder, trained on the train split's judged passages with in-batch negatives,
its checkpoint chosen on dev (a tenth of train where there is none), and judged on the test split with the documents
embedded anew. The untouched bi-encoder is the measure of all rows. A grid that was stopped goes on when it is started
again with the same `--json`.
"""

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
from datasets import Dataset

from benchmarks.common import CachedTeacher, load_teacher, minilm, open_corpus, print_rows, read_rows, write_rows
from haystack_distill.data.beir import BeirFolder, Qrels
from haystack_distill.data.index import IndexView
from haystack_distill.distill.pair import AsymmetricSettings, measure_pair, rows_of_qrels, train_asymmetric
from haystack_distill.distill.pair_training import AsymmetricTraining
from haystack_distill.evaluation.quality import compare, latencies, measure, search

WORK = Path("benchmark_output/asymmetric")
QUICK_ROWS, QUICK_QUERIES = 320, 60
COLUMNS = (
    ("query layers", "query_layers", "d"),
    ("document layers", "document_layers", "d"),
    ("kept for queries", "query_kept", ""),
    ("kept for documents", "document_kept", ""),
    ("nDCG@10", "ndcg@10", ".1f"),
    ("95 % from", "ci_low", ".1f"),
    ("to", "ci_high", ".1f"),
    ("% of untouched", "share", ".1f"),
    ("p", "p", ".3f"),
    ("query speed-up", "query_speedup", ".1f"),
    ("document speed-up", "document_speedup", ".1f"),
    ("training s", "training_seconds", ".0f"),
)


def main(
    data: Annotated[Path, typer.Option(help="A BEIR folder with train and test judgments.")],
    json: Annotated[Path | None, typer.Option(help="Write the rows to this file.")] = None,
    quick: Annotated[
        bool, typer.Option(help="Few pairs, queries and documents, one epoch: shows that it runs, not how good it is.")
    ] = False,
    depths: Annotated[
        str | None, typer.Option(help="Depths of both sides, the full one first; default: 6,3,2,1, or 6,1 if quick.")
    ] = None,
    epochs: Annotated[int | None, typer.Option(help="Passes over the pairs.")] = None,
    teacher: Annotated[
        str | None, typer.Option(help="A sentence-transformers folder; default: the packaged MiniLM.")
    ] = None,
) -> None:
    """Print the grid."""
    encoder = load_teacher(teacher or minilm())
    corpus, index = open_corpus(data, encoder)
    dev = corpus.qrels.get("dev") or _held_out(corpus)
    if quick:
        corpus, index, dev = _small(corpus, index, dev)
    pairs = _pairs(corpus, dev)
    rows = read_rows(json)
    done = {(row["query_layers"], row["document_layers"]) for row in rows}
    training = AsymmetricTraining(epochs=epochs or (1 if quick else 3))
    chosen = [int(depth) for depth in (depths or ("6,1" if quick else "6,3,2,1")).split(",")]
    for query_layers in chosen:
        for document_layers in chosen:
            if (query_layers, document_layers) in done:
                continue
            settings = AsymmetricSettings(query_layers, document_layers, training)
            rows.append(row_of(data.name, settings, encoder, corpus, index, pairs, dev))
            write_rows(json, rows)
            print_rows(rows[-1:], COLUMNS, "")
    print_rows(rows, COLUMNS, f"{data.name}: untouched nDCG@10 {rows[0]['untouched']:.1f}")


def row_of(
    name: str,
    settings: AsymmetricSettings,
    encoder: CachedTeacher,
    corpus: BeirFolder,
    index: IndexView,
    pairs: Dataset,
    dev: Qrels,
) -> dict[str, Any]:
    """Train one pair and measure it beside the encoder it was cut from."""
    work = WORK / f"{name}-{settings.query_layers}-{settings.document_layers}"
    pair = train_asymmetric(encoder, pairs, settings, work, index, corpus.queries, dev)
    shutil.rmtree(work)
    test = corpus.qrels["test"]
    queries = [corpus.queries[query_id] for query_id in test]
    untouched = measure(search(index, list(test), encoder.encode_queries(queries)), test)
    quality = measure_pair(pair, index, corpus.queries, test)
    summary = quality.summary()["ndcg@10"]
    layers = pair.summary["layers"]
    return {
        "data": name,
        "query_layers": settings.query_layers,
        "document_layers": settings.document_layers,
        "query_kept": " ".join(map(str, layers["query"])),
        "document_kept": " ".join(map(str, layers["document"])),
        "untouched": 100 * untouched.mean(),
        "ndcg@10": 100 * summary["value"],
        "ci_low": 100 * summary["low"],
        "ci_high": 100 * summary["high"],
        "share": 100 * quality.mean() / untouched.mean() if untouched.mean() else None,
        "p": compare(quality, untouched)["p"],
        **_speed_ups(encoder, pair, queries, index.texts),
        "rows": pair.summary["rows"],
        "training_seconds": pair.summary["seconds"],
        "history": pair.summary["history"],
    }


def _pairs(corpus: BeirFolder, dev: Qrels) -> Dataset:
    train = {query_id: judged for query_id, judged in corpus.qrels["train"].items() if query_id not in dev}
    return rows_of_qrels(replace(corpus, qrels={"train": train}))


def _small(corpus: BeirFolder, index: IndexView, dev: Qrels) -> tuple[BeirFolder, IndexView, Qrels]:
    """A few queries of each split, and the documents that are judged for them."""
    dev, test = _some(dev, QUICK_QUERIES), _some(corpus.qrels["test"], QUICK_QUERIES)
    judged = {document for qrels in (dev, test) for documents in qrels.values() for document in documents}
    rows = [row for row, document in enumerate(index.ids) if document in judged]
    ids, texts = [index.ids[row] for row in rows], [index.texts[row] for row in rows]
    train = _some(corpus.qrels["train"], QUICK_ROWS)
    small = replace(index, ids=ids, texts=texts, vectors=index.vectors[rows])
    return replace(corpus, qrels={"train": train, "test": test}), small, dev


def _some(qrels: Qrels, count: int) -> Qrels:
    return dict(list(qrels.items())[:: max(1, len(qrels) // count)][:count])


def _held_out(corpus: BeirFolder) -> Qrels:
    some = sorted(corpus.qrels["train"])[::10][:400]
    return {query_id: corpus.qrels["train"][query_id] for query_id in some}


def _speed_ups(encoder: CachedTeacher, pair: Any, queries: list[str], documents: list[str]) -> dict[str, float]:
    """How many times as fast as the untouched encoder each side is, one text at a time, in turn."""
    found = {}
    for side, model, texts in (
        ("query", pair.query_model, queries),
        ("document", pair.document_model, documents),
    ):
        timed = latencies(
            {
                "untouched": lambda text: encoder.encode_queries([text]),
                side: lambda text, one=model: one.encode([text]),
            },
            texts[:: max(1, len(texts) // 20)][:20],
            rounds=3,
        )
        found[f"{side}_speedup"] = float(np.median(timed["untouched"]) / np.median(timed[side]))
    return found


if __name__ == "__main__":
    typer.run(main)
