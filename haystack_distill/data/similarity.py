# SPDX-FileCopyrightText: 2026-present haystack-distill contributors
#
# SPDX-License-Identifier: Apache-2.0

"""How an index ranks: told from the order in which it returns vectors, not from the name of a setting."""

from collections.abc import Iterable

import numpy as np

SIMILARITIES = ("cosine", "dot_product", "euclidean")

RECOGNISED = 0.8
"""A similarity must explain this share of the pairs in a store's order; a wrong one explains about half."""

TIED = 0.01
"""Similarities this close explain an order equally well, as all do where vectors have length 1."""

Found = tuple[np.ndarray, np.ndarray]
"""A query vector `[dim]` and the vectors found for it, in the store's order, `[found, dim]`."""


def scores(similarity: str, query: np.ndarray, vectors: np.ndarray) -> np.ndarray:
    """
    Score vectors, higher is better.

    :param similarity: `cosine`, `dot_product` or `euclidean`.
    :param query: `[dim]`.
    :param vectors: `[vectors, dim]`.
    :returns: `[vectors]`.
    """
    query, vectors = np.asarray(query, dtype=np.float64), np.asarray(vectors, dtype=np.float64)
    if similarity == "euclidean":
        return -np.linalg.norm(vectors - query, axis=1)
    products = vectors @ query
    if similarity == "dot_product":
        return products
    cosines: np.ndarray = products / (np.linalg.norm(vectors, axis=1) * np.linalg.norm(query))
    return cosines


def shares_in_order(searches: Iterable[Found]) -> dict[str, float]:
    """
    Compare orders with what each similarity would have made of the same vectors.

    Only the order within what was found is looked at, so that an approximate index, which misses some neighbours, is
    recognised as surely as an exact one.

    :param searches: Queries and what a store found for them.
    :returns: Similarity -> the share of pairs that stand as it ranks them; 1.0 for all where no pair differs.
    """
    searches = list(searches)
    return {name: _share_in_order(name, searches) for name in SIMILARITIES}


def _share_in_order(similarity: str, searches: list[Found]) -> float:
    right = pairs = 0
    for query, vectors in searches:
        values = scores(similarity, query, vectors)
        better = np.subtract.outer(values, values)[np.triu_indices(len(values), k=1)]
        clear = np.abs(better) > 1e-5 * max(1e-12, float(np.abs(values).max()))  # nearer ones are float32's rounding
        right += int(np.sum(better[clear] > 0))
        pairs += int(np.sum(clear))
    return right / pairs if pairs else 1.0


def recognise(shares: dict[str, float], declared: str | None = None) -> str | None:
    """
    Name the similarity that explains an order.

    :param shares: What `shares_in_order` returned.
    :param declared: Which one is claimed; taken where the order fits it as well as the best.
    :returns: The similarity, or None if none explains the order.
    """
    best = max(shares, key=lambda name: shares[name])
    if shares[best] < RECOGNISED:
        return None
    return declared if declared and shares[declared] >= shares[best] - TIED else best


def has_length_one(vectors: np.ndarray) -> bool:
    """
    Whether all vectors have length 1, to 1e-3.

    :param vectors: `[vectors, dim]`.
    """
    return bool(np.all(np.abs(np.linalg.norm(vectors, axis=1) - 1) < 1e-3))


def rank_alike(first: tuple[str, bool], second: tuple[str, bool]) -> bool:
    """
    Whether two indexes rank the same way: over vectors of length 1 every similarity ranks as cosine does.

    :param first: A similarity, and whether the vectors it ranks have length 1.
    :param second: Another.
    """
    one, other = ("cosine" if normalized else similarity for similarity, normalized in (first, second))
    return one == other
