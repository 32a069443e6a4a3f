"""What is to be known of a kind of document store. The defaults are what Haystack's stores have in common."""

import inspect
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
from haystack import Document

PAGE = 1000
"""Documents that one call reads."""

Vector = list[float] | np.ndarray


class Row(NamedTuple):
    """A stored document without Haystack's object around it."""

    id: str
    content: str | None
    meta: dict[str, Any]
    vector: Vector | None


Retried = Callable[[Callable[[], Any]], Any]
"""Calls a function, and calls it again if it fails."""

Reader = Callable[[Any, Retried], Iterator[list[Row]]]
"""Reads a store in pages; each call over a connection goes through the second argument."""

Search = Callable[[list[float], int], list[Document]]
"""Finds documents for a query vector and a number of documents."""


def row_of(document: Document) -> Row:
    """Take what is read of a document."""
    return Row(document.id, document.content, document.meta, document.embedding)


def _read_at_once(store: Any, retried: Retried) -> Iterator[list[Row]]:
    """Read any store with the call that all have: one page, so that all documents are in memory."""
    yield [row_of(document) for document in retried(store.filter_documents)]


def _vectors_by_filter(store: Any, document_ids: list[str]) -> dict[str, Vector | None]:
    filters = {"field": "id", "operator": "in", "value": document_ids}
    return {document.id: document.embedding for document in store.filter_documents(filters)}


def _usual_word(store: Any) -> str | None:
    words = (getattr(store, name, None) for name in ("embedding_similarity_function", "similarity"))
    return next((word for word in words if isinstance(word, str)), None)


def _usual_search(store: Any) -> Search | None:
    names = ("embedding_retrieval", "_embedding_retrieval", "search")
    method = next((getattr(store, name) for name in names if hasattr(store, name)), None)
    if method is None:
        return None
    wants = {"return_embedding": True} if "return_embedding" in inspect.signature(method).parameters else {}
    return lambda query, top_k: method(query_embedding=query, top_k=top_k, **wants)


_USUAL_WORDS = {
    "cosine": "cosine",
    "cosine_similarity": "cosine",
    "dot_product": "dot_product",
    "inner_product": "dot_product",
    "ip": "dot_product",
    "euclidean": "euclidean",
    "l2": "euclidean",
    "l2_distance": "euclidean",
    "l2_norm": "euclidean",
}


@dataclass(frozen=True)
class InYaml:
    """
    How a YAML names a kind of store and what searches it; types are import paths.

    :param store: Its type.
    :param parameters: Its init parameters, for vectors of some dimensions and its word for a similarity.
    :param retriever: The type of the retriever that takes vectors.
    :param keyword: The type of the retriever that takes words; None if Haystack has none for it.
    :param packages: What is installed for it, besides Haystack.
    """

    store: str
    parameters: Callable[[int, str], dict[str, Any]]
    retriever: str
    keyword: str | None = None
    packages: tuple[str, ...] = ()


@dataclass(frozen=True)
class StoreKind:
    """
    All that is known of a kind of document store.

    :param name: Its class; None stands for any store.
    :param similarities: Its words for `cosine`, `dot_product` and `euclidean`, its default first.
    :param similarity: Reads from a store which of these words it was made with; None if it does not say.
    :param search: Gives the search by vector of a store, or None if it has none that is known.
    :param read: Reads all documents of a store in pages.
    :param vectors: Gives the vectors of documents by their ids, where a search left them out.
    :param effort: What to raise where its search, being approximate, finds too little; None if it never is.
    :param is_embedded: Whether a store lives in this process, where its asynchronous client would open another, empty
        store, or refuse.
    :param emptied_by: Settings that delete the index when a store is opened.
    :param is_open: Whether a store has been opened, so that those settings have done what they do.
    :param memory_only: What to do about a store that is gone with this process; None if it lasts.
    :param save: Writes a store to disk, where it does not do so itself.
    :param shared_by: How two stores of one YAML come to hold the same documents.
    :param random_setting: An init parameter with another random value in each process.
    :param in_yaml: How a YAML names it; None for a store that is not known by name.
    """

    name: str | None = None
    title: str = "any other"
    similarities: Mapping[str, str] = field(default_factory=lambda: _USUAL_WORDS)
    similarity: Callable[[Any], str | None] = _usual_word
    search: Callable[[Any], Search | None] = _usual_search
    read: Reader = _read_at_once
    vectors: Callable[[Any, list[str]], Mapping[str, Vector | None]] = _vectors_by_filter
    effort: str | None = "the search effort of its index"
    is_embedded: Callable[[Any], bool] = lambda _: False
    emptied_by: tuple[str, ...] = ("recreate_index", "recreate_table")
    is_open: Callable[[Any], bool] = lambda store: getattr(store, "_client", None) is not None
    memory_only: Callable[[Any], str | None] = lambda _: None
    save: Callable[[Any], None] = lambda _: None
    shared_by: str = "make sure that both name the same server and the same index"
    random_setting: str | None = None
    in_yaml: InYaml | None = None


def store_of(retriever: Any) -> Any:
    """Give the document store behind a retriever, or None if it has none: retrievers keep it by one of two names."""
    return getattr(retriever, "document_store", None) or getattr(retriever, "_document_store", None)
