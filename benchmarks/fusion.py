"""
Two rankings made into one: as Haystack's joiner does it, and by a weighted sum with one weight.

Candidates of a query are document id -> score, the best first. A joined ranking is in the same form.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from haystack_distill.data.beir import Qrels
from haystack_distill.evaluation.quality import Run, ranking

Candidates = dict[str, float]
WEIGHTS = tuple(round(0.05 * step, 2) for step in range(21))
"""Weights of the dense side that are tried."""

TOP = 10


@dataclass(frozen=True)
class Fusion:
    """
    A way to join two rankings.

    :param join: Candidates by words, dense candidates and a weight -> joined candidates.
    :param fitted_on: The split that the weight is fitted on; None if there is no weight.
    """

    join: Callable[[Candidates, Candidates, Any], Candidates]
    fitted_on: str | None = None


def rrf(words: Candidates, dense: Candidates, _: Any) -> Candidates:
    """Reciprocal rank fusion as in Haystack's `DocumentJoiner`: the sum of 1 / (61 + place), places from 0."""
    scores: Candidates = {}
    for candidates in (words, dense):
        for place, key in enumerate(candidates):
            scores[key] = scores.get(key, 0.0) + 1 / (61 + place)
    return in_haystacks_order(scores)


def dbsf(words: Candidates, dense: Candidates, _: Any) -> Candidates:
    """Distribution-based fusion as in `DocumentJoiner`: mean - 3 to mean + 3 deviations become 0 to 1; the larger."""
    scores: Candidates = {}
    for candidates in (words, dense):
        for key, score in spread(candidates).items():
            scores[key] = max(scores.get(key, -math.inf), score)
    return in_haystacks_order(scores)


def spread(candidates: Candidates) -> Candidates:
    """Scores by their distance from the mean; equal ones stay as they are."""
    values = np.array(list(candidates.values()))
    if not candidates or values.min() == values.max() or not (deviation := values.std()):
        return candidates
    low = values.mean() - 3 * deviation
    return {key: float((score - low) / (6 * deviation)) for key, score in candidates.items()}


def in_haystacks_order(scores: Candidates) -> Candidates:
    """The best first and ties as they came, which is what a user sees; scores become places from the end."""
    keys = sorted(scores, key=lambda key: scores[key], reverse=True)
    return {key: float(len(keys) - place) for place, key in enumerate(keys)}


def convex(words: Candidates, dense: Candidates, weight: float) -> Candidates:
    """
    Sum scores that are scaled to 0 to 1 within each list; a document that a list lacks has 0 there.

    :param words: Candidates by words.
    :param dense: Dense candidates.
    :param weight: Of the dense side, from 0 to 1.
    """
    sides = [(1 - weight, scaled(words)), (weight, scaled(dense))]
    scores: Candidates = {}
    for share, side in sides:
        for key, score in side.items():
            scores[key] = scores.get(key, 0.0) + share * score
    return {key: scores[key] for key in ranking(scores)}


def scaled(candidates: Candidates) -> Candidates:
    """Scores from 0, the last, to 1, the first; all 1 where they are equal."""
    if not candidates:
        return {}
    low, high = min(candidates.values()), max(candidates.values())
    if low == high:
        return dict.fromkeys(candidates, 1.0)
    return {key: (score - low) / (high - low) for key, score in candidates.items()}


def best_weight(words: Run, dense: Run, qrels: Qrels) -> float:
    """
    The weight of the dense side with the highest mean nDCG@10; of equal ones the one nearest to 0.5.

    :param words: Query id -> candidates by words.
    :param dense: Query id -> dense candidates.
    :param qrels: Judgments.
    """
    columns = [_columns(words[query_id], dense[query_id], judged) for query_id, judged in qrels.items()]
    means = {weight: float(np.mean([_ndcg(weight, *one) for one in columns])) for weight in WEIGHTS}
    return max(sorted(means, key=lambda weight: abs(weight - 0.5)), key=lambda weight: round(means[weight], 9))


def _columns(words: Candidates, dense: Candidates, judged: dict[str, int]) -> tuple[np.ndarray, np.ndarray, float]:
    """Scaled scores `[2, candidates]` and grades, in the order in which ties are broken, and the ideal DCG."""
    keys = sorted({*words, *dense}, reverse=True)
    sides = [scaled(words), scaled(dense)]
    scores = np.array([[side.get(key, 0.0) for key in keys] for side in sides])
    grades = np.array([max(0, judged.get(key, 0)) for key in keys], dtype=float)
    ideal = sorted((grade for grade in judged.values() if grade > 0), reverse=True)[:TOP]
    return scores, grades, float(sum(grade / math.log2(place + 2) for place, grade in enumerate(ideal)))


def _ndcg(weight: float, scores: np.ndarray, grades: np.ndarray, ideal: float) -> float:
    if not ideal or not grades.any():
        return 0.0
    order = np.argsort(-((1 - weight) * scores[0] + weight * scores[1]), kind="stable")[:TOP]
    return float((grades[order] / np.log2(np.arange(2, len(order) + 2))).sum() / ideal)


FUSIONS = {
    "rrf": Fusion(rrf),
    "dbsf": Fusion(dbsf),
    "convex": Fusion(convex, "dev"),
    "oracle": Fusion(convex, "test"),
}
"""Every way to join a ranking by words with a dense one; add another here."""
