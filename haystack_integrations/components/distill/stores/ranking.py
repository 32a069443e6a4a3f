"""How a store ranks: what it says, and what its answers to known vectors show."""

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import numpy as np

from haystack_distill.data.similarity import SIMILARITIES, Found, has_length_one, recognise, shares_in_order
from haystack_integrations.components.distill.stores.base import Search, Vector
from haystack_integrations.components.distill.stores.known import kind_of

TOP = 50
"""Documents that a probe looks at."""


class UnknownRankingError(ValueError):
    """A store returns documents in an order that no similarity known here explains."""


@dataclass(frozen=True)
class Ranking:
    """How a store ranks, as its answers show, and the share of pairs whose order each similarity explains."""

    similarity: str
    normalized: bool
    shares: dict[str, float]


def similarity_of(store: Any) -> str:
    """How a store says it ranks, `cosine`, `dot_product` or `euclidean`; a ValueError if it says none of them."""
    kind, name = kind_of(store), type(store).__name__
    word = kind.similarity(store)
    if word is None:
        msg = f"{name} does not say how it ranks: set `similarity` to one of {', '.join(SIMILARITIES)}."
        raise ValueError(msg)
    ours = {theirs.lower(): similarity for theirs, similarity in kind.similarities.items()}.get(word.lower())
    if ours is None:
        msg = f"{name} ranks by {word!r}, which is none of {', '.join(SIMILARITIES)}."
        raise ValueError(msg)
    return ours


def vectors_of(store: Any, document_ids: list[str]) -> Mapping[str, Vector]:
    """Give the vectors of documents by their ids, also those that the store's protocol hides."""
    stored = kind_of(store).vectors(store, document_ids) if document_ids else {}
    return {key: vector for key, vector in stored.items() if vector is not None}


def ranking_of(store: Any, search: Search, queries: np.ndarray) -> Ranking | None:
    """
    Find out how a store ranks by looking at the order of what it returns.

    :param search: The search of the store, or of a retriever over it.
    :param queries: Known vectors, `[queries, dim]`.
    :returns: The ranking, or None if the store returned too little to tell.
    :raises UnknownRankingError: If the order fits no similarity known here.
    """
    answers = [_answer(store, search, query) for query in queries]
    answers = [(query, vectors) for query, vectors in answers if len(vectors) > 1]
    if not answers:
        return None
    shares = shares_in_order(answers)
    said = None
    with suppress(ValueError):
        said = similarity_of(store)
    similarity = recognise(shares, said)
    if similarity is None:
        figures = ", ".join(f"{name} explains {share:.0%}" for name, share in shares.items())
        msg = f"{type(store).__name__} ranks by none of {', '.join(SIMILARITIES)} ({figures} of its order)."
        raise UnknownRankingError(msg)
    return Ranking(similarity, has_length_one(np.concatenate([vectors for _, vectors in answers])), shares)


def _answer(store: Any, search: Search, query: np.ndarray) -> Found:
    documents = search([float(value) for value in query], TOP)
    vectors: dict[str, Any] = {document.id: document.embedding for document in documents}
    vectors |= vectors_of(store, [key for key, vector in vectors.items() if vector is None])
    return query, np.array([vector for vector in vectors.values() if vector is not None], dtype=np.float32)
