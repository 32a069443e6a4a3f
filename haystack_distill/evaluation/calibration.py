"""
From when on an encoder's own answer is good enough: thresholds with a bound that holds for finite samples.

A query of which an encoder is no surer (`sureness`) than its threshold goes on to the next. What such a threshold
costs, in quality lost or in queries sent on, rises or falls with it for every single query, and so conformal risk
control (arXiv 2208.02814, theorem 1) needs no assumption but that queries to come are drawn like those it was
calibrated with: their expected cost is then at most what was asked for, however few there were. It is a bound on the
mean over all that may be drawn, calibration queries too; Learn-then-Test (arXiv 2110.01052) is for bounds that hold
with a probability.
"""

from dataclasses import asdict, dataclass

import numpy as np

from haystack_distill.data.beir import Qrels
from haystack_distill.evaluation.measures import MAIN
from haystack_distill.evaluation.quality import Run, measure, ranking
from haystack_distill.evaluation.sureness import sureness

FEWEST = 30
"""From so many queries on a threshold is calibrated: fewer say next to nothing."""

TOP, GAIN = 10, 60
"""Where there are no judgments, the teacher's first ten documents gain 60, 30, 20, ... by their ranks."""


ROUNDING = 1e-9


@dataclass(frozen=True)
class Target:
    """
    What a cascade may cost, one of two.

    :param max_loss: Which part of the last encoder's nDCG@10 may be lost.
    :param max_share: Which part of the queries an encoder may send on to the next.
    :raises ValueError: If it is not exactly one of them, between 0 and 1.
    """

    max_loss: float | None = None
    max_share: float | None = None

    def __post_init__(self) -> None:
        """Check it."""
        given = [value for value in (self.max_loss, self.max_share) if value is not None]
        if len(given) != 1 or not 0 < given[0] < 1:
            msg = f"Name one target between 0 and 1, max_loss or max_share; got {asdict(self)}."
            raise ValueError(msg)


@dataclass(frozen=True)
class Thresholds:
    """
    Where each encoder but the last sends a query on.

    :param values: Threshold of each: it must be surer than that.
    :param sent: Which part of the calibration queries came to each but the first.
    :param lost: Which part of the last encoder's nDCG@10 was lost on the calibration queries, gains not counted.
    """

    values: list[float]
    sent: list[float]
    lost: float
    queries: int
    target: Target
    judged_by: str


def calibrate(runs: list[Run], target: Target, qrels: Qrels | None = None) -> Thresholds:
    """
    Choose the threshold of each encoder but the last.

    Each encoder may lose an equal part of what may be lost in all; its own threshold keeps to that whatever the others
    do, so that the parts add up to no more.

    :param runs: What each encoder finds for the same queries, in order of cost; higher scores are better.
    :param qrels: Judgments. Without any, the last encoder's first ten documents are what should be found.
    :raises ValueError: If there are too few queries for the target.
    """
    judged_by = "judgments" if qrels else "the last encoder's first documents"
    qrels = qrels or opinion_of(runs[-1])
    sure = [np.array([sureness(run[query_id].values()) for query_id in qrels]) for run in runs[:-1]]
    reached = [measure(run, qrels).per_query[MAIN.key] for run in runs]
    losses = [np.maximum(reached[-1] - one, 0) for one in reached[:-1]]
    _check_enough(len(qrels), target, reached[-1], len(sure))
    if target.max_share is not None:
        values = [most_sent(scores, target.max_share) for scores in sure]
    else:
        assert target.max_loss is not None
        allowed = target.max_loss / len(sure) * reached[-1]
        values = [least_lost(scores, loss, allowed) for scores, loss in zip(sure, losses, strict=True)]
    on, sent, lost = np.ones(len(qrels), dtype=bool), [], 0.0
    for scores, loss, value in zip(sure, losses, values, strict=True):
        lost += float(loss[on & (scores > value)].sum())
        on &= scores <= value
        sent.append(float(on.mean()))
    return Thresholds(values, sent, lost / float(reached[-1].sum()), len(qrels), target, judged_by)


def most_sent(scores: np.ndarray, share: float) -> float:
    """
    The highest threshold at which at most so many queries to come are expected to be at or below it.

    Conformal risk control with the risk "is sent on", which is 0 or 1.
    """
    ordered = np.sort(scores)
    count = int(np.floor(share * (len(ordered) + 1) + ROUNDING)) - 1
    while count and ordered[count - 1] == ordered[count]:  # of equal scores all are sent on or none
        count -= 1
    return float(ordered[count - 1]) if count else float(np.nextafter(ordered[0], -np.inf))


def least_lost(scores: np.ndarray, losses: np.ndarray, allowed: np.ndarray) -> float:
    """
    The lowest threshold at which answers above it are expected to lose no more than is allowed.

    Conformal risk control with the risk `loss - allowed`, which is below 1, and a bound of 0.

    :param losses: What each query loses if it is answered, between 0 and 1.
    :param allowed: What each may lose.
    """
    order = np.argsort(scores)[::-1]
    spent = np.cumsum(losses[order]) + 1 - allowed.sum()  # by all queries down to this one
    too_much = np.flatnonzero(spent > ROUNDING)
    if not len(too_much):
        return float(np.nextafter(scores.min(), -np.inf))
    return float(scores[order[too_much[0]]])


def opinion_of(run: Run) -> Qrels:
    """Judgments for queries without any: the first ten documents of a run, the first of them most."""
    first = {query_id: ranking(found)[:TOP] for query_id, found in run.items()}
    return {query_id: {key: GAIN // rank for rank, key in enumerate(keys, start=1)} for query_id, keys in first.items()}


def _check_enough(count: int, target: Target, reached: np.ndarray, parts: int) -> None:
    if not reached.any():
        msg = (
            "The last encoder finds no document that is judged relevant: are they judgments of this store's documents?"
        )
        raise ValueError(msg)
    share = target.max_share or (target.max_loss or 0) / parts * float(reached.mean())
    needed = max(FEWEST, int(np.ceil(1 / share)))
    if count < needed:
        msg = f"{count} queries are too few to calibrate a cascade to {asdict(target)}: give {needed} or more."
        raise ValueError(msg)
