"""
Weights of retrievers out of a teacher's scores of their first documents.

The fused score of a document is the weighted sum of its scaled scores, and the weights are those under which the fused
scores explain the teacher's best: listwise cross-entropy, as in ListNet (Cao et al., 2007). It is convex, so there is
one answer, for any number of retrievers; how sure the teacher is scales all weights alike, and they are made to sum to
1 at the end.
"""

import logging
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np
from scipy.optimize import minimize
from scipy.special import log_softmax, softmax

from haystack_distill.data.training_set import Row
from haystack_distill.evaluation.held_out import hold_out
from haystack_distill.fusion.model import Fusion, Ranked, Retriever, better_first
from haystack_distill.fusion.scales import SCALES
from haystack_distill.losses.temperature import entropy_temperature

logger = logging.getLogger(__name__)

FEWEST = 10
"""So few labelled queries at least."""

FOLDS = 5
"""Every query is judged by weights that were fitted without it."""

PENALTY = 1e-3
"""Of the squared weights, so that a retriever that is always right has a finite weight."""

TARGET_ENTROPY = 0.3
"""How sure a reader is: its distributions' mean entropy as a share of the largest possible."""


@dataclass(frozen=True)
class Fitted:
    """
    A fusion and how sure it is.

    :param losses: Scale -> held-out cross-entropy of each query, `[queries]`.
    :param parts: For each query the fusion that was fitted without it.
    :param rows: The queries that the teacher tells something about.
    """

    fusion: Fusion
    losses: dict[str, np.ndarray]
    parts: list[Fusion]
    rows: list[Row]

    def ranges(self) -> dict[str, tuple[float, float]]:
        """The lowest and the highest weight of each retriever among the parts."""
        weights = np.array([[retriever.weight for retriever in part.retrievers] for part in self.parts])
        return dict(
            zip(self.fusion.names, zip(weights.min(0).tolist(), weights.max(0).tolist(), strict=True), strict=True)
        )


def first_in_turn(lists: Iterable[Sequence[str]], count: int) -> list[str]:
    """
    The first documents of each list, which are worth a label: the order of what stands below them changes little.

    :returns: Document ids in turn, so that a teacher that is biased by position favours no list.
    """
    lists = list(lists)
    turns = (ids[place] for place in range(count) for ids in lists if place < len(ids))
    return list(dict.fromkeys(turns))


def fit(rows: Sequence[Row], names: Sequence[str], top_k: int, *, judged: bool, seed: int = 0) -> Fitted:
    """
    Fit the weights of retrievers, on the scale that explains held-out labels best.

    A scale must be better than one before it by more than a standard error of the difference.

    :param rows: Labelled rows with the lists of all retrievers.
    :param top_k: How many documents a list holds at most.
    :param judged: Whether teacher scores are grades; those of a reader become a distribution by their entropy.
    :raises ValueError: If fewer than 10 rows tell documents apart, a retriever found nothing or has scores that don't
        explain its order, no document was found by two, or no weights explain the teacher.
    """
    telling = [row for row in rows if _tells(row, judged)]
    if len(telling) < FEWEST:
        msg = (
            f"Of {len(rows)} labelled queries {len(telling)} have candidates that the teacher tells apart, and at "
            f"least {FEWEST} are needed: give more queries, 50 or better 100."
        )
        raise ValueError(msg)
    retrievers = tuple(describe(name, [(row.lists or {}).get(name, {}) for row in telling]) for name in names)
    _check_shared(telling, names)
    targets = _targets(telling, judged)
    numbers, folds = list(range(len(telling))), np.zeros(len(telling), dtype=np.int64)
    for place, number in enumerate(hold_out(numbers, len(numbers), seed)[0]):
        folds[number] = place % FOLDS
    candidates = {scale: [_values(Fusion(scale, top_k, retrievers), row) for row in telling] for scale in SCALES}
    weights = {
        scale: [_weights(values, targets, folds != fold) for fold in range(FOLDS)]
        for scale, values in candidates.items()
    }
    losses = {
        scale: np.array([_loss(values[number], targets[number], weights[scale][folds[number]]) for number in numbers])
        for scale, values in candidates.items()
    }
    scale = _simplest(losses)
    whole = _weights(candidates[scale], targets, np.ones(len(telling), dtype=bool))
    bare = Fusion(scale, top_k, retrievers)
    fusion = _weighted(bare, whole)
    fusion = replace(fusion, told_apart=_told_apart(fusion, telling))
    parts = [_weighted(bare, each) for each in weights[scale]]
    return Fitted(fusion, losses, [parts[fold] for fold in folds], telling)


def _tells(row: Row, judged: bool) -> bool:
    scores = row.teacher_scores or [0.0]
    return len(set(scores)) > 1 and (not judged or max(scores) > 0)


def describe(name: str, lists: Sequence[Ranked]) -> Retriever:
    """
    What the lists of a retriever look like; its weight is still 0.

    :raises ValueError: If it found nothing, a score is no number, or its scores neither fall nor rise along its lists.
    """
    found = [ranked for ranked in lists if ranked]
    if not found:
        msg = f"The retriever {name!r} found nothing for any of {len(lists)} queries: leave it out, or fill its store."
        raise ValueError(msg)
    ordered = [better_first(name, ranked, True) for ranked in found]
    falls = all(before >= after for scores in ordered for before, after in pairwise(scores))
    if not falls and any(before > after for scores in ordered for before, after in pairwise(scores)):
        msg = (
            f"The scores of the retriever {name!r} neither fall nor rise along its lists, so they don't say what it "
            "thinks best: use one that returns documents in the order of their scores."
        )
        raise ValueError(msg)
    first, last = (np.array([scores[end] for scores in ordered]) for end in (0, -1))
    everything = np.concatenate(ordered)
    return Retriever(name, 0.0, falls, _spread(first), _spread(last), float(everything.min()), float(everything.max()))


def _spread(values: np.ndarray) -> tuple[float, float]:
    """Mean and standard deviation; a deviation of 0 would make every other value impossible."""
    return float(values.mean()), float(max(values.std(), 1e-3 * abs(values).max(), 1e-9))


def _check_shared(rows: Sequence[Row], names: Sequence[str]) -> None:
    """Refuse retrievers that have no document in common: their weights would mean nothing."""
    found = {name: {document for row in rows for document in (row.lists or {}).get(name, {})} for name in names}
    for name in names:
        others = set().union(*(found[other] for other in names if other != name))
        if not found[name] & others:
            msg = (
                f"The retriever {name!r} found no document that another one found too, in {len(rows)} queries: all "
                "must search the same documents, under the same ids."
            )
            raise ValueError(msg)


def _targets(rows: Sequence[Row], judged: bool) -> list[np.ndarray]:
    """What the teacher thinks of the candidates of each row, as shares that sum to 1."""
    scores = [np.asarray(row.teacher_scores, dtype=np.float64) for row in rows]
    if judged:
        return [grades.clip(0) / grades.clip(0).sum() for grades in scores]
    temperature = entropy_temperature([row.tolist() for row in scores], TARGET_ENTROPY)
    return [softmax(row / temperature) for row in scores]


def _values(fusion: Fusion, row: Row) -> np.ndarray:
    """Scaled scores of a row's candidates, `[candidates, retrievers]`."""
    columns = []
    for retriever in fusion.retrievers:
        ranked = (row.lists or {}).get(retriever.name, {})
        scaled, missing = {}, 0.0
        if ranked:
            values, missing = SCALES[fusion.scale](better_first(retriever.name, ranked, retriever.falls))
            scaled = dict(zip(ranked, values.tolist(), strict=True))
        columns.append([scaled.get(document, missing) for document in row.document_ids])
    return np.array(columns, dtype=np.float64).T


def _weights(values: Sequence[np.ndarray], targets: Sequence[np.ndarray], chosen: np.ndarray) -> np.ndarray:
    """The weights, none below 0, that explain the chosen rows best, `[retrievers]`; they are not yet normalised."""
    pairs = [(values[number], targets[number]) for number in np.flatnonzero(chosen).tolist()]

    def loss(weights: np.ndarray) -> tuple[float, np.ndarray]:
        total, slope = PENALTY * float(weights @ weights), 2 * PENALTY * weights
        for scores, target in pairs:
            total += _loss(scores, target, weights) / len(pairs)
            slope = slope + scores.T @ (softmax(scores @ weights) - target) / len(pairs)
        return total, slope

    start = np.ones(values[0].shape[1])
    found: np.ndarray = minimize(loss, start, jac=True, method="L-BFGS-B", bounds=[(0, None)] * len(start)).x
    return found


def _loss(values: np.ndarray, target: np.ndarray, weights: np.ndarray) -> float:
    return float(-target @ log_softmax(values @ weights))


def _simplest(losses: dict[str, np.ndarray]) -> str:
    """The first scale that no other one beats by more than a standard error of the difference."""
    best = min(losses, key=lambda scale: float(losses[scale].mean()))
    for scale, values in losses.items():
        differences = values - losses[best]
        if differences.mean() <= differences.std(ddof=1) / np.sqrt(len(differences)):
            return scale
    return best


def _weighted(fusion: Fusion, weights: np.ndarray) -> Fusion:
    if not weights.sum() > 0:
        msg = (
            f"The teacher prefers what {' and '.join(fusion.names)} put last, so no weights explain it: look at its "
            "labels, or take another teacher."
        )
        raise ValueError(msg)
    pairs = zip(fusion.retrievers, (weights / weights.sum()).tolist(), strict=True)
    return replace(fusion, retrievers=tuple(replace(retriever, weight=weight) for retriever, weight in pairs))


def _told_apart(fusion: Fusion, rows: Sequence[Row]) -> bool:
    """Whether the lists of every row are known by their scores, in whichever order they come."""
    for row in rows:
        lists = {name: ranked for name, ranked in (row.lists or {}).items() if ranked}
        backwards = dict(reversed(lists.items()))
        if any(fusion.whose(list(each.values())) != list(each) for each in (lists, backwards)):
            logger.warning(
                "The lists of %s can't always be told apart by their scores, so DistilledJoiner will refuse them; "
                "DistilledHybridRetriever knows them by name.",
                " and ".join(fusion.names),
            )
            return False
    return True
