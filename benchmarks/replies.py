# SPDX-FileCopyrightText: 2026-present haystack-distill contributors
#
# SPDX-License-Identifier: Apache-2.0

"""Figures of replies that were chosen from a response set."""

import re

import numpy as np


def in_whole_set(
    queries: np.ndarray, own: np.ndarray, replies: list[str], scores: np.ndarray, pool: list[str], found: np.ndarray
) -> np.ndarray:
    """How many responses come before the human reply in the response set and the test replies, up to 10 of the set."""
    names = np.array(replies, dtype=object)
    places = np.zeros(len(queries), dtype=np.int64)
    for row, query in enumerate(queries):
        right = own[row] @ query
        from_set = sum(
            score > right and pool[at] != replies[row] for score, at in zip(scores[row], found[row], strict=True)
        )
        better = set(names[own @ query > right]) - {replies[row]} - {pool[at] for at in found[row]}
        places[row] = from_set + len(better)
    return places


def diversity(replies: list[str]) -> dict[str, float]:
    """Dist-2 and dist-3 over all replies together, and their mean length in tokens (words and marks)."""
    tokens = [re.findall(r"\w+|[^\w\s]", reply.lower()) for reply in replies]

    def distinct(n: int) -> float:
        grams = [tuple(one[start : start + n]) for one in tokens for start in range(len(one) - n + 1)]
        return len(set(grams)) / max(1, len(grams))

    return {"dist2": distinct(2), "dist3": distinct(3), "length": float(np.mean([len(one) for one in tokens]))}
