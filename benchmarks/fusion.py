"""
What a hybrid of BM25 and an encoder is worth whose weights a teacher sets, by teacher and number of labels.

    pip install 'haystack-distill[bench]'
    python -m benchmarks.fusion --data BEIR_FOLDER [--teacher NAME ...] [--labels N ...] [--json FILE] [--quick]

Systems: `keyword` (BM25) and `dense` alone; `rrf` and `dbsf` as Haystack's `DocumentJoiner` joins their first 100
documents; `fitted`, by `haystack_distill.fusion`; `oracle`, the best weight on the test split, which nobody has.
Teachers: `reader` (the likelihood of the question given the passage, SmolLM2-135M unless `--reader` names another),
`judgments`, and `sentences` (a held-out sentence of the index, whose right passage is its own: no question is needed).
Questions are of dev, or of train where dev is too small (`labelled_on`), none of which test asks; the labels of a
reader are kept, so that a table that was stopped goes on.
"""

import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer

from benchmarks.common import load_teacher, minilm, print_rows, write_rows
from benchmarks.joining import best_weight, convex
from benchmarks.labels import NamedReader, labelled
from benchmarks.retrieval_systems import Bench
from demo.packaged import smollm2
from haystack_distill.data.beir import Qrels
from haystack_distill.data.training_set import Row
from haystack_distill.evaluation.held_out import split_index_text
from haystack_distill.evaluation.quality import Quality, Run, compare, measure
from haystack_distill.fusion.baselines import BASELINES
from haystack_distill.fusion.fitting import FEWEST, first_in_turn, fit
from haystack_distill.fusion.model import Ranked

NAMES = ("keyword", "dense")
CANDIDATES, TOP_K = 4, 100
TEACHERS = ("judgments", "sentences", "reader")
COLUMNS = (
    ("system", "system", ""),
    ("teacher", "teacher", ""),
    ("labels", "labels", "d"),
    ("weight of dense", "weight", ".2f"),
    ("scale", "scale", ""),
    ("nDCG@10", "ndcg@10", ".3f"),
    ("low", "ci_low", ".3f"),
    ("high", "ci_high", ".3f"),
    ("p to rrf", "p_vs_rrf", ".3f"),
    ("of oracle", "share_of_oracle", ".1%"),
    ("ms to join", "ms", ".3f"),
)


def main(
    data: Annotated[list[Path], typer.Option(help="BEIR folders.")],
    teacher: Annotated[list[str] | None, typer.Option(help=f"Of {', '.join(TEACHERS)}; default: all.")] = None,
    labels: Annotated[list[int] | None, typer.Option(help="How many labelled questions; can be given again.")] = None,
    json: Annotated[Path | None, typer.Option(help="Write the rows to this file.")] = None,
    model: Annotated[str | None, typer.Option(help="The encoder, a sentence-transformers folder.")] = None,
    reader: Annotated[str | None, typer.Option(help="Folder, hub name or GGUF file; default: SmolLM2.")] = None,
    passage_tokens: Annotated[int, typer.Option(help="How much of a passage the reader reads.")] = 160,
    quick: Annotated[
        bool, typer.Option("--quick", help="Few queries and labels: shows that it runs, not how good it is.")
    ] = False,
) -> None:
    """Print a table for each folder."""
    encoder = load_teacher(model or minilm())
    counts = labels or ([10] if quick else [25, 50, 100, 250])
    shown: list[dict[str, Any]] = []
    for folder in data:
        bench = Bench(folder, encoder, Path("benchmark_output/fusion"), quick=quick)
        asking = None
        if "reader" in (teacher or TEACHERS):
            asking = NamedReader(reader or smollm2(), "float32", passage_tokens)
        rows, rrf, best = _baselines(bench)
        for name in teacher or TEACHERS:
            rows += _fitted(bench, name, counts, asking, rrf, best)
        shown += rows
        print_rows(rows, COLUMNS, f"{bench.name}: {len(bench.test)} test questions, {len(bench.index)} passages")
        if json:
            write_rows(json, shown)


def _baselines(bench: Bench) -> tuple[list[dict[str, Any]], Quality, float]:
    """Rows of what needs no labels and of the oracle; the quality of `rrf`, and the oracle's nDCG@10."""
    lists = _lists(bench)
    words, dense = ({key: each[name] for key, each in lists.items()} for name in NAMES)
    weight = best_weight(words, dense, bench.test)
    runs: dict[str, Run] = {"keyword": words, "dense": dense}
    runs |= {name: {key: join(each.values()) for key, each in lists.items()} for name, join in BASELINES.items()}
    runs["oracle"] = {key: convex(words[key], dense[key], weight) for key in lists}
    rrf = measure(runs["rrf"], bench.test)
    best = measure(runs["oracle"], bench.test).mean()
    rows = {name: _row(bench, name, measure(run, bench.test), rrf, best) for name, run in runs.items()}
    rows["rrf"]["ms"] = _milliseconds(lambda each: BASELINES["rrf"](each.values()), list(lists.values()))
    rows["oracle"]["weight"] = weight
    return list(rows.values()), rrf, best


def _fitted(
    bench: Bench, teacher: str, counts: Sequence[int], reader: NamedReader | None, rrf: Quality, best: float
) -> list[dict[str, Any]]:
    """Rows of fusions that are fitted on so many labels each."""
    rows, on = _labels(bench, teacher, max(counts), reader)
    lists = _lists(bench)
    found = []
    for count in sorted({min(count, len(rows)) for count in counts}):
        fusion = fit(rows[:count], NAMES, TOP_K, judged=teacher != "reader").fusion
        quality = measure({key: fusion.join(each) for key, each in lists.items()}, bench.test)
        row = _row(bench, "fitted", quality, rrf, best)
        row |= {"teacher": teacher, "labels": count, "labelled_on": on, "scale": fusion.scale}
        row |= {"weight": fusion.retrievers[1].weight, "ms": _milliseconds(fusion.join, list(lists.values()))}
        found.append(row)
    return found


def _row(bench: Bench, system: str, quality: Quality, rrf: Quality, best: float) -> dict[str, Any]:
    figures = quality.summary()["ndcg@10"]
    return {
        "data": bench.name,
        "system": system,
        "encoder": "untouched",
        "teacher": None,
        "labels": None,
        "labelled_on": None,
        "scale": None,
        "weight": None,
        "ndcg@10": figures["value"],
        "ci_low": figures["low"],
        "ci_high": figures["high"],
        "p_vs_rrf": None if system == "rrf" else compare(quality, rrf)["p"],
        "share_of_oracle": quality.mean() / best if best else None,
        "ms": None,
    }


def _lists(bench: Bench) -> dict[str, dict[str, Ranked]]:
    """Test query -> retriever -> list."""
    words, dense = bench.run("bm25", ""), bench.run("encoder", "")
    return {key: {"keyword": words[key], "dense": dense[key]} for key in words}


def _labels(bench: Bench, teacher: str, count: int, reader: NamedReader | None) -> tuple[list[Row], str]:
    """Labelled rows in a random order, and what they were made of."""
    queries, judged, on = _asked(bench, sentences=teacher == "sentences")
    chosen = _shuffled(sorted(judged), count)
    ranked = [bench.ranker(name, "").rank([queries[key] for key in chosen], TOP_K) for name in ("bm25", "encoder")]
    lists = [dict(zip(NAMES, pair, strict=True)) for pair in zip(*ranked, strict=True)]
    rows = [_as_row(bench, key, queries[key], each) for key, each in zip(chosen, lists, strict=True)]
    if reader is None or teacher != "reader":
        return [_labelled_by(judged[row.query_id], row) for row in rows], on
    found = {row.query_id: row for row in labelled(rows, "question", reader, source=str(bench.folder))[0].labelled()}
    return [replace(found[row.query_id], lists=row.lists) for row in rows if row.query_id in found], on


def _asked(bench: Bench, *, sentences: bool) -> tuple[dict[str, str], Qrels, str]:
    """Queries that test does not ask, with judgments, and what they are."""
    if sentences:
        text = split_index_text(bench.index, seed=0)
        own = {key: {bench.index.ids[place]: 1 for place in text.places[line]} for key, line in text.dev.items()}
        return text.dev, own, "sentences of the index"
    if len(bench.dev) >= FEWEST:
        return bench.queries, bench.dev, "dev"
    return bench.queries, bench.corpus.qrels["train"], "train"


def _shuffled(keys: list[str], count: int) -> list[str]:
    """A sample in a random order, of which every beginning is one too."""
    order = np.random.default_rng(0).permutation(len(keys))
    return [keys[place] for place in order[:count]]


def _as_row(bench: Bench, key: str, query: str, lists: dict[str, Ranked]) -> Row:
    """A query with the first documents of both lists."""
    documents = first_in_turn([list(each) for each in lists.values()], CANDIDATES)
    return Row(
        query_id=key,
        query=query,
        answers=[],
        document_ids=documents,
        documents=[bench.corpus.documents[document] for document in documents],
        retriever_scores=[1 / place for place in range(1, len(documents) + 1)],
        lists={name: dict(each) for name, each in lists.items()},
    )


def _labelled_by(judged: dict[str, int], row: Row) -> Row:
    return replace(row, teacher_scores=[float(judged.get(document, 0)) for document in row.document_ids])


def _milliseconds(join: Any, lists: list[dict[str, Ranked]]) -> float:
    """Median milliseconds to join the lists of a query."""
    times = []
    for each in lists[:200]:
        start = time.perf_counter()
        join(each)
        times.append(time.perf_counter() - start)
    return 1000 * float(np.median(times))


if __name__ == "__main__":
    typer.run(main)
