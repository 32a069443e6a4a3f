"""How an index ranks: found out from the order in which it returns vectors, not from the name of a setting."""

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
    Score vectors for a query, higher is better; euclidean distances are squared, as stores square them.

    :param query: `[dim]`.
    :param vectors: `[vectors, dim]`.
    :returns: `[vectors]`, float64.
    """
    query, vectors = np.asarray(query, dtype=np.float64), np.asarray(vectors, dtype=np.float64)
    if similarity == "euclidean":
        return np.asarray(-np.square(vectors - query).sum(axis=1))
    if similarity == "cosine":
        query = query / max(float(np.linalg.norm(query)), 1e-12)
        vectors = vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)
    return np.asarray(vectors @ query)


def cosines(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """
    Compare vectors row by row.

    :param first: `[rows, dim]`.
    :param second: `[rows, dim]`.
    :returns: `[rows]`; NaN where a row is all zeros.
    """
    lengths = np.linalg.norm(first, axis=1) * np.linalg.norm(second, axis=1)
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.asarray(np.sum(first * second, axis=1) / lengths)


def shares_in_order(searches: Iterable[Found]) -> dict[str, float]:
    """
    Compare orders with what each similarity would have made of the same vectors.

    Only the order within what was found counts, so that an approximate index, which misses some neighbours, is
    recognised as surely as an exact one.

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
    Name the similarity that explains an order, or None if none does.

    :param shares: What `shares_in_order` returned.
    :param declared: The similarity that the store claims; taken where the order fits it as well as the best.
    """
    best = max(shares, key=lambda name: shares[name])
    if shares[best] < RECOGNISED:
        return None
    return declared if declared and shares[declared] >= shares[best] - TIED else best


def has_length_one(vectors: np.ndarray) -> bool:
    """Whether all vectors, `[vectors, dim]`, have length 1, to 1e-3."""
    return bool(np.all(np.abs(np.linalg.norm(vectors, axis=1) - 1) < 1e-3))


def rank_alike(first: tuple[str, bool], second: tuple[str, bool]) -> bool:
    """
    Whether two indexes rank the same way: over vectors of length 1 every similarity ranks as cosine does.

    :param first: A similarity, and whether the vectors that it ranks have length 1.
    """
    mine, other = ("cosine" if normalized else similarity for similarity, normalized in (first, second))
    return mine == other
