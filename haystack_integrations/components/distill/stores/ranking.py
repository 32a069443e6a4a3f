# SPDX-FileCopyrightText: 2026-present haystack-distill contributors
#
# SPDX-License-Identifier: Apache-2.0

"""How a store ranks: what it says, and what its answers to known vectors show."""

import inspect
import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from haystack import Document

from haystack_distill.data.similarity import SIMILARITIES, Found, has_length_one, recognise, shares_in_order
from haystack_integrations.components.distill.stores import faiss

logger = logging.getLogger(__name__)

TOP = 50
"""Documents a probe looks at."""

_NAMES = {
    "dot_product": "dot_product",
    "inner_product": "dot_product",
    "ip": "dot_product",
    "cosine": "cosine",
    "cosine_similarity": "cosine",
    "l2": "euclidean",
    "l2_distance": "euclidean",
    "l2_norm": "euclidean",
    "euclidean": "euclidean",
}
"""What stores call their similarities -> what they are called here."""

_ATTRIBUTES = ("embedding_similarity_function", "similarity", "vector_function", "_distance_function")
"""Where InMemory, Qdrant and Elasticsearch, pgvector, and Chroma keep theirs."""

_SEARCHES = ("embedding_retrieval", "_embedding_retrieval", "_query_by_embedding", "search")
"""What stores call their search by vector."""

Search = Callable[[list[float], int], list[Document]]


class UnknownRankingError(ValueError):
    """A store returns documents in an order that no similarity known here explains."""


@dataclass(frozen=True)
class Ranking:
    """
    How a store ranks, seen in its answers.

    :param similarity: `cosine`, `dot_product` or `euclidean`.
    :param normalized: Whether the vectors it returned have length 1.
    :param shares: Similarity -> the share of pairs that stood as it ranks them.
    """

    similarity: str
    normalized: bool
    shares: dict[str, float]


def similarity_of(store: Any) -> str:
    """
    How a store says it ranks.

    :param store: The document store.
    :returns: `cosine`, `dot_product` or `euclidean`.
    :raises ValueError: If the store does not say, or names something else.
    """
    kind = type(store).__name__
    if kind == "FAISSDocumentStore":
        return "euclidean"
    name = next((getattr(store, one) for one in _ATTRIBUTES if isinstance(getattr(store, one, None), str)), None)
    if kind == "MilvusDocumentStore":
        name = (store.search_params or store.index_params or {}).get("metric_type", "l2")
    if name is None:
        msg = f"{kind} does not say how it ranks: set `similarity` to one of {', '.join(SIMILARITIES)}."
        raise ValueError(msg)
    if name.lower() not in _NAMES:
        msg = f"{kind} ranks by {name!r}, which is none of {', '.join(SIMILARITIES)}."
        raise ValueError(msg)
    return _NAMES[name.lower()]


def store_of(retriever: Any) -> Any:
    """
    The store behind a retriever.

    :param retriever: The retriever.
    :returns: The store, or None if there is none.
    """
    return getattr(retriever, "document_store", None) or getattr(retriever, "_document_store", None)


def search_of(store: Any) -> Search | None:
    """
    The search by vector of a store, with the vectors in its results where it can give them.

    :param store: The document store.
    :returns: A function of a query vector and a number of documents, or None if the store has no search known here.
    """
    if hasattr(store, "search_embeddings"):  # Chroma takes and gives batches
        return lambda query, top_k: store.search_embeddings([query], top_k)[0]
    name = next((name for name in _SEARCHES if hasattr(store, name)), None)
    if name is None:
        return None
    search = getattr(store, name)
    wants = {"return_embedding": True} if "return_embedding" in inspect.signature(search).parameters else {}
    return lambda query, top_k: search(query_embedding=query, top_k=top_k, **wants)


def ranking_of(store: Any, search: Search, queries: np.ndarray) -> Ranking | None:
    """
    Find out how a store ranks by looking at the order of what it returns.

    :param store: The document store.
    :param search: Its search, or that of a retriever.
    :param queries: Known vectors, `[queries, dim]`.
    :returns: The ranking, or None if the store returned too little to tell.
    :raises UnknownRankingError: If the order fits no similarity known here.
    """
    found = [_found(store, search, query) for query in queries]
    found = [(query, vectors) for query, vectors in found if len(vectors) > 1]
    if not found:
        return None
    shares = shares_in_order(found)
    similarity = recognise(shares, _said(store))
    if similarity is None:
        figures = ", ".join(f"{name} explains {share:.0%}" for name, share in shares.items())
        msg = f"{type(store).__name__} ranks by none of {', '.join(SIMILARITIES)} ({figures} of its order)."
        raise UnknownRankingError(msg)
    return Ranking(similarity, has_length_one(np.concatenate([vectors for _, vectors in found])), shares)


def _found(store: Any, search: Search, query: np.ndarray) -> Found:
    documents = search([float(value) for value in query], TOP)
    found: dict[str, Any] = {one.id: one.embedding for one in documents}
    missing = [key for key, vector in found.items() if vector is None]
    if missing and type(store).__name__ == "FAISSDocumentStore":
        found |= faiss.stored_vectors(store, missing)
    elif missing:
        filters = {"field": "id", "operator": "in", "value": missing}
        found |= {one.id: one.embedding for one in store.filter_documents(filters)}
    return query, np.array([vector for vector in found.values() if vector is not None], dtype=np.float32)


def _said(store: Any) -> str | None:
    try:
        return similarity_of(store)
    except ValueError:
        return None
