"""What a fitted fusion is worth, beside each retriever alone and what Haystack's joiner makes of the same lists."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from haystack_distill.data.beir import Qrels, read_judged
from haystack_distill.data.index import IndexView
from haystack_distill.data.training_set import Row
from haystack_distill.evaluation.proof import Evidence, Result
from haystack_distill.evaluation.quality import measure
from haystack_distill.fusion.fitting import Fitted
from haystack_distill.fusion.model import FILE, Fusion, Ranked
from haystack_distill.fusion.ways import Search, measured_ways, runs_of, searches_of

REFERENCE, TITLE = "rrf", "A hybrid whose weights the teacher set"
WEIGHTS = tuple(round(0.05 * step, 2) for step in range(21))
"""Of the second of two retrievers, for a curve."""


@dataclass(frozen=True)
class Asked:
    """
    Queries that a fusion is measured on.

    :param lists: Query id -> retriever -> list.
    :param texts: Document id -> text; a report leaves out what is not there.
    :param parts: Query id -> a fusion that was fitted without the query; where there is none, the whole one serves.
    :param judge: Who judged, for people.
    """

    queries: dict[str, str]
    qrels: Qrels
    lists: dict[str, Mapping[str, Ranked]]
    texts: dict[str, str]
    judge: str
    parts: Mapping[str, Fusion]


def held_out(fitted: Fitted) -> Asked:
    """The labelled queries, each joined by weights fitted without it, judged by the teacher's favourite."""
    rows = fitted.rows
    favourites = [row.document_ids[int(np.argmax(row.teacher_scores or []))] for row in rows]
    return Asked(
        {row.query_id: row.query for row in rows},
        {row.query_id: {favourite: 1} for row, favourite in zip(rows, favourites, strict=True)},
        {row.query_id: row.lists or {} for row in rows},
        {key: text for row in rows for key, text in zip(row.document_ids, row.documents, strict=True)},
        "the labelled queries, each left out in turn, judged by the teacher's favourite",
        {row.query_id: part for row, part in zip(rows, fitted.parts, strict=True)},
    )


def judged_by_people(rows: Sequence[Row], judged: str) -> Asked:
    """
    The queries of a test split.

    :param rows: What the retrievers found for them.
    :param judged: The BEIR folder.
    """
    folder = read_judged(judged)
    qrels = folder.qrels["test"]
    found = {row.query_id: row.lists or {} for row in rows}
    texts = {key: "" for grades in qrels.values() for key in grades}
    texts |= {key: text for row in rows for key, text in zip(row.document_ids, row.documents, strict=True)}
    return Asked(
        {query_id: folder.queries[query_id] for query_id in qrels},
        qrels,
        {query_id: found.get(query_id, {}) for query_id in qrels},
        texts | folder.documents,
        "judged test queries",
        {},
    )


def result_of(
    fitted: Fitted, asked: Asked, searches: Mapping[str, Search], made: dict[str, Any], labels: Path, seed: int
) -> Result:
    """
    Measure a fusion beside each retriever and the baselines.

    :param searches: Retriever -> its search, which is timed.
    :param made: The provenance.
    :param labels: The labelled training set, of which the result gets a copy.
    """
    runs, ways = runs_of(fitted.fusion, asked.lists, asked.parts), searches_of(fitted.fusion, searches)
    measured = measured_ways(runs, ways, asked.queries, asked.qrels)
    texts = list(asked.texts.values())
    index = IndexView(list(asked.texts), texts, np.zeros((len(texts), 1)), "cosine", fingerprint="")
    curve = _curve(fitted.fusion, asked)
    evidence = Evidence(measured, index, asked.queries, asked.qrels, seed, REFERENCE, TITLE, curve)
    figures = {
        **evidence.figures(),
        "weights": {retriever.name: retriever.weight for retriever in fitted.fusion.retrievers},
        "weight_ranges": fitted.ranges(),
        "scale": fitted.fusion.scale,
        "scale_losses": {scale: float(losses.mean()) for scale, losses in fitted.losses.items()},
        "labels": len(fitted.rows),
        "curve": curve,
        "judged_by": asked.judge,
        "provenance": made,
    }
    files, folders = {FILE: fitted.fusion.content()}, {"training_set": labels}
    return Result(evidence, figures, _facts(figures), files=files, folders=folders)


def _curve(fusion: Fusion, asked: Asked) -> list[tuple[float, float]]:
    """Weight of the second of two retrievers -> the main measure; empty for more than two."""
    if len(fusion.retrievers) != 2:
        return []
    first, second = fusion.retrievers
    points = []
    for weight in WEIGHTS:
        other = replace(fusion, retrievers=(replace(first, weight=1 - weight), replace(second, weight=weight)))
        run = {key: other.join(lists) for key, lists in asked.lists.items()}
        points.append((weight, measure(run, asked.qrels).mean()))
    return points


def _facts(figures: dict[str, Any]) -> dict[str, str]:
    """What a report says of how the weights came to be."""
    ranges = figures["weight_ranges"]
    weights = (
        f"{name} {weight:.2f} ({ranges[name][0]:.2f} to {ranges[name][1]:.2f})"
        for name, weight in figures["weights"].items()
    )
    losses = ", ".join(f"{scale} {loss:.4f}" for scale, loss in figures["scale_losses"].items())
    return {
        "Weights (range where a fifth of the labels is left out)": ", ".join(weights),
        "Scale": figures["scale"],
        "Held-out cross-entropy (of scales within a standard error the first is taken)": losses,
        "Teacher": ", ".join(f"{name}: {value}" for name, value in figures["provenance"]["teacher"].items()),
        "Labelled queries": str(figures["labels"]),
        "Judged by": figures["judged_by"],
    }
