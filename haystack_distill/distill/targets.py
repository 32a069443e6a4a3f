# SPDX-FileCopyrightText: 2026-present haystack-distill contributors
#
# SPDX-License-Identifier: Apache-2.0

"""What a student is to learn from a labelled training set: candidates as rows of an index, and the teacher's scores."""

import logging
import math
from collections.abc import Iterable
from dataclasses import dataclass, field

import numpy as np

from haystack_distill.data.training_set import Row

logger = logging.getLogger(__name__)

MOST_ROWS_KEEP = 0.1
"""Where rows differ in length, this share of them may be too short to be used; the others are cut to one length."""


@dataclass(frozen=True)
class Targets:
    """
    Queries with their candidates, the teacher's favourite first.

    :param query_ids: Their ids.
    :param queries: Their texts.
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
        """
        Some of the queries.

        :param rows: Which.
        """
        return Targets(
            [self.query_ids[row] for row in rows],
            [self.queries[row] for row in rows],
            self.candidates[rows],
            self.scores[rows],
        )


def targets_of(rows: Iterable[Row], document_ids: list[str], passages: int | None = None) -> Targets:
    """
    Make targets of labelled rows. Rows that teach nothing are counted and left out.

    :param rows: Labelled rows.
    :param document_ids: The ids of the index, in its order.
    :param passages: How many candidates of each query are kept, the first in the retriever's order; None keeps as many
        as nine rows in ten have.
    :returns: The targets.
    :raises ValueError: If candidates are missing in the index, or no row teaches anything.
    """
    place = {document_id: number for number, document_id in enumerate(document_ids)}
    labelled = [row for row in rows if row.teacher_scores is not None]
    skipped: dict[str, int] = {}
    known = [row for row in labelled if all(document_id in place for document_id in row.document_ids)]
    _count(skipped, "candidates that are not in the index", len(labelled) - len(known))
    if labelled and not known:
        missing = next(one for one in labelled[0].document_ids if one not in place)
        msg = (
            f"The training set's candidates are not in the index ({missing!r} is one): build it with a retriever over "
            "the same document store."
        )
        raise ValueError(msg)
    varied = [row for row in known if len(row.document_ids) > 1]
    _count(skipped, "fewer than two passages", len(known) - len(varied))
    telling = [row for row in varied if len(set(row.teacher_scores or [])) > 1]
    _count(skipped, "all teacher scores equal", len(varied) - len(telling))
    lengths = sorted(len(row.document_ids) for row in telling)
    width = min(passages or 2**31, lengths[math.floor(MOST_ROWS_KEEP * len(lengths))]) if lengths else 0
    long_enough = [row for row in telling if len(row.document_ids) >= width]
    _count(skipped, "fewer passages than nine rows in ten", len(telling) - len(long_enough))
    if not long_enough:
        why = ", ".join(f"{reason}: {count}" for reason, count in skipped.items()) or "it is empty"
        msg = f"No row of the training set teaches anything ({why}): raise top_k, or look at the teacher."
        raise ValueError(msg)
    if skipped:
        logger.warning("Rows that teach nothing are left out: %s.", skipped)
    candidates = np.array([[place[one] for one in row.document_ids[:width]] for row in long_enough])
    scores = np.array([(row.teacher_scores or [])[:width] for row in long_enough], dtype=np.float64)
    order = np.argsort(-scores, axis=1, kind="stable")
    return Targets(
        [row.query_id for row in long_enough],
        [row.query for row in long_enough],
        np.take_along_axis(candidates, order, 1),
        np.take_along_axis(scores, order, 1),
        skipped,
    )


def _count(skipped: dict[str, int], reason: str, count: int) -> None:
    if count:
        skipped[reason] = count
