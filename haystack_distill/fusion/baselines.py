"""What Haystack's `DocumentJoiner` makes of lists, as its users see it: a fitted fusion is measured beside it."""

import math
from collections.abc import Callable, Collection, Iterable

import numpy as np

from haystack_distill.fusion.model import Ranked
from haystack_distill.fusion.scales import RANK_CONSTANT

FITTED = "fitted"
"""What a fitted fusion is called beside them."""


def rrf(lists: Iterable[Ranked]) -> dict[str, float]:
    """Reciprocal rank fusion: the sum of 1 / (61 + place), places from 0."""
    scores: dict[str, float] = {}
    for ranked in lists:
        for place, key in enumerate(ranked):
            scores[key] = scores.get(key, 0.0) + 1 / (RANK_CONSTANT + place)
    return places(sorted(scores, key=scores.__getitem__, reverse=True))


def dbsf(lists: Iterable[Ranked]) -> dict[str, float]:
    """Distribution-based score fusion: mean - 3 to mean + 3 deviations become 0 to 1, and the larger of two counts."""
    scores: dict[str, float] = {}
    for ranked in lists:
        for key, score in _spread(ranked).items():
            scores[key] = max(scores.get(key, -math.inf), score)
    return places(sorted(scores, key=scores.__getitem__, reverse=True))


def places(keys: Collection[str]) -> dict[str, float]:
    """Places from the end as scores, so that ties stand as they came, which is what a user sees."""
    return {key: float(len(keys) - place) for place, key in enumerate(keys)}


BASELINES: dict[str, Callable[[Iterable[Ranked]], dict[str, float]]] = {"rrf": rrf, "dbsf": dbsf}
"""Name -> a way to join lists whose documents stand best first, into one that does."""


def _spread(ranked: Ranked) -> Ranked:
    """Scores by their distance from the mean; equal ones stay as they are."""
    values = np.array(list(ranked.values()))
    if not len(values) or values.min() == values.max() or not (deviation := values.std()):
        return ranked
    low = values.mean() - 3 * deviation
    return {key: float((score - low) / (6 * deviation)) for key, score in ranked.items()}
