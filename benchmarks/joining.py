"""Two rankings made into one: as Haystack's joiner does it, and by a weighted sum with one weight that is searched."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from haystack_distill.data.beir import Qrels
from haystack_distill.evaluation.quality import Run, ranking
from haystack_distill.fusion.baselines import BASELINES
from haystack_distill.fusion.model import Ranked
from haystack_distill.fusion.proof import WEIGHTS
from haystack_distill.fusion.scales import min_max

Candidates = dict[str, float]
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


def convex(words: Ranked, dense: Ranked, weight: float) -> Candidates:
    """
    Sum scores that are scaled to 0 to 1 within each list; a document that a list lacks has 0 there.

    :param words: Candidates by words.
    :param dense: Dense candidates.
    :param weight: Of the dense side, from 0 to 1.
    """
    scores: Candidates = {}
    for share, side in ((1 - weight, scaled(words)), (weight, scaled(dense))):
        for key, score in side.items():
            scores[key] = scores.get(key, 0.0) + share * score
    return {key: scores[key] for key in ranking(scores)}


def scaled(ranked: Ranked) -> Candidates:
    """Scores from 0, the last, to 1, the first; all 1 where they are equal."""
    if not ranked:
        return {}
    return dict(zip(ranked, min_max(np.array(list(ranked.values())))[0].tolist(), strict=True))


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
    **{name: Fusion(lambda words, dense, _, join=join: join([words, dense])) for name, join in BASELINES.items()},
    "convex": Fusion(convex, "dev"),
    "oracle": Fusion(convex, "test"),
}
"""Every way to join a ranking by words with a dense one; add another here."""
