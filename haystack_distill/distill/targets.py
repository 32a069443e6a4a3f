"""What a student is to learn from a labelled training set: candidates as rows of an index, and the teacher's scores."""

import logging
import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

import numpy as np

from haystack_distill.data.index import IndexView
from haystack_distill.data.training_set import RECIPROCAL_RANK, Row
from haystack_distill.evaluation.held_out import Dev, hold_out, tenth

logger = logging.getLogger(__name__)

MOST_ROWS_KEEP = 0.1
"""Where rows differ in length, this share of them may be too short to be used; the others are cut to one length."""

AGREE = 0.5
"""Correlation of a student's scores with the training set's from which both are taken to be about the same vectors."""

ENOUGH_SCORES = 2000
"""So many scores tell whether they are of the same vectors."""


@dataclass(frozen=True)
class Targets:
    """
    Queries with their candidates, the teacher's favourite first.

    :param candidates: Rows of the index, `[queries, passages]`.
    :param scores: The teacher's, `[queries, passages]`, falling.
    :param skipped: Why rows were left out -> how many.
    """

    query_ids: list[str]
    queries: list[str]
    candidates: np.ndarray
    scores: np.ndarray
    skipped: dict[str, int] = field(default_factory=dict)

    def __len__(self) -> int:
        """The number of queries."""
        return len(self.queries)

    def part(self, rows: np.ndarray) -> "Targets":
        """Some of the queries, by their places."""
        return Targets(
            [self.query_ids[row] for row in rows],
            [self.queries[row] for row in rows],
            self.candidates[rows],
            self.scores[rows],
            self.skipped,
        )


def targets_of(rows: Iterable[Row], document_ids: list[str], passages: int | None = None) -> Targets:
    """
    Make targets of labelled rows. Rows that teach nothing are counted and left out.

    :param document_ids: The ids of the index, in its order.
    :param passages: How many candidates of each query are kept, the first in the retriever's order; None keeps as many
        as nine rows in ten have.
    :raises ValueError: If candidates are missing in the index, or no row teaches anything.
    """
    place = {document_id: number for number, document_id in enumerate(document_ids)}
    labelled = [row for row in rows if row.teacher_scores is not None]
    skipped: dict[str, int] = {}

    def kept(rows: list[Row], reason: str, keeps: Callable[[Row], bool]) -> list[Row]:
        left = [row for row in rows if keeps(row)]
        if len(left) < len(rows):
            skipped[reason] = len(rows) - len(left)
        return left

    known = kept(labelled, "candidates that are not in the index", lambda row: place.keys() >= set(row.document_ids))
    if labelled and not known:
        raise ValueError(_elsewhere(labelled[0], place))
    varied = kept(known, "fewer than two passages", lambda row: len(row.document_ids) > 1)
    telling = kept(varied, "all teacher scores equal", lambda row: len(set(row.teacher_scores or [])) > 1)
    width = _width(telling, passages)
    used = kept(telling, "fewer passages than nine rows in ten", lambda row: len(row.document_ids) >= width)
    if not used:
        why = ", ".join(f"{reason}: {count}" for reason, count in skipped.items()) or "it is empty"
        msg = f"No row of the training set teaches anything ({why}): raise top_k, or look at the teacher."
        raise ValueError(msg)
    if skipped:
        logger.warning("Rows that teach nothing are left out: %s.", skipped)
    candidates = np.array([[place[document] for document in row.document_ids[:width]] for row in used])
    scores = np.array([(row.teacher_scores or [])[:width] for row in used], dtype=np.float64)
    order = np.argsort(-scores, axis=1, kind="stable")
    return Targets(
        [row.query_id for row in used],
        [row.query for row in used],
        np.take_along_axis(candidates, order, 1),
        np.take_along_axis(scores, order, 1),
        skipped,
    )


def _width(rows: list[Row], passages: int | None) -> int:
    """How many candidates are kept of each row, so that nine rows in ten have as many."""
    lengths = sorted(len(row.document_ids) for row in rows)
    return min(passages or lengths[-1], lengths[math.floor(MOST_ROWS_KEEP * len(lengths))]) if lengths else 0


def _elsewhere(row: Row, place: dict[str, int]) -> str:
    missing = next(document for document in row.document_ids if document not in place)
    return (
        f"The training set's candidates are not in the index ({missing!r} is one): build it with a retriever over "
        "the same document store."
    )


def check_same_vectors(rows: list[Row], similarity: str, index: IndexView, vectors: dict[str, np.ndarray]) -> None:
    """Refuse, with a ValueError, a student, an index and labelled rows that are not about the same vectors."""
    dim = len(next(iter(vectors.values())))
    if dim != index.dim:
        msg = f"The student makes vectors of {dim} dimensions and the index has {index.dim}: it was made for another."
        raise ValueError(msg)
    if similarity == RECIPROCAL_RANK:
        return  # found by words: there are no scores to compare with
    place = {document_id: number for number, document_id in enumerate(index.ids)}
    documents = index.ranking_vectors
    ours, theirs = [], []
    for row in rows:
        if row.query_id in vectors and place.keys() >= set(row.document_ids):
            ours += (documents[[place[document] for document in row.document_ids]] @ vectors[row.query_id]).tolist()
            theirs += row.retriever_scores
        if len(ours) > ENOUGH_SCORES:
            break
    agreement = float(np.corrcoef(ours, theirs)[0, 1]) if np.std(ours) and np.std(theirs) else 0.0
    if agreement < AGREE:
        msg = (
            f"The training set was made with vectors of another model (its retriever's scores and this student's agree "
            f"at {agreement:.2f} only): build it with the retriever that is to be trained."
        )
        raise ValueError(msg)


def held_out(targets: Targets, index: IndexView, seed: int) -> Dev:
    """Keep some queries to select on, judged by their teacher: its favourite counts as relevant."""
    rows = hold_out(range(len(targets)), max(1, tenth(len(targets))), seed)[0]
    return Dev(
        {targets.query_ids[row]: targets.queries[row] for row in rows},
        {targets.query_ids[row]: {index.ids[targets.candidates[row, 0]]: 1} for row in rows},
        judged=False,
    )
