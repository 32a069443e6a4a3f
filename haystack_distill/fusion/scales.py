"""
What makes the scores of different retrievers comparable, before they are weighted and added.

Each scale turns one retriever's list for one query into values of which higher is better, and says what a document
counts that this retriever did not return. Bruch et al., "An Analysis of Fusion Functions for Hybrid Retrieval"
(arXiv 2210.11934), section 4, compare them.
"""

from collections.abc import Callable

import numpy as np

RANK_CONSTANT = 61
"""Haystack counts ranks from 0 and adds 61, which is the 60 of Cormack et al. (2009) with ranks from 1."""

Scale = Callable[[np.ndarray], tuple[np.ndarray, float]]
"""Scores of a list, `[documents]`, the best first -> values, `[documents]`, and that of a document not in the list."""


def min_max(scores: np.ndarray) -> tuple[np.ndarray, float]:
    """From 0, the list's lowest score and that of what is not in it, to 1, its highest; equal scores are all 1."""
    low, high = scores[-1], scores[0]
    return ((scores - low) / (high - low) if high > low else np.ones(len(scores))), 0.0


def z_score(scores: np.ndarray) -> tuple[np.ndarray, float]:
    """Standard deviations from the list's mean; what is not in the list counts as its last document does."""
    deviation = scores.std()
    values = (scores - scores.mean()) / deviation if deviation > 0 else np.zeros(len(scores))
    return values, float(values[-1]) if deviation > 0 else -1.0


def rank(scores: np.ndarray) -> tuple[np.ndarray, float]:
    """The order alone: with weights this is weighted reciprocal rank fusion; what is not in the list has 0."""
    return RANK_CONSTANT / (RANK_CONSTANT + np.arange(len(scores))), 0.0


SCALES: dict[str, Scale] = {"min-max": min_max, "z-score": z_score, "rank": rank}
"""Name -> scale. Where labels can't tell two apart, the first is taken."""
