# SPDX-FileCopyrightText: 2026-present haystack-distill contributors
#
# SPDX-License-Identifier: Apache-2.0

"""Reading a whole store in pages: natively where the store is known, through the protocol otherwise."""

import logging
from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeVar

from haystack.document_stores.errors import DocumentStoreError
from tenacity import Retrying, retry_if_exception, stop_after_attempt, wait_exponential

from haystack_distill.data.index import Page
from haystack_integrations.components.distill.stores import chroma, faiss, in_memory, milvus, pgvector, qdrant
from haystack_integrations.components.distill.stores.row import Reader, Row

logger = logging.getLogger(__name__)

T = TypeVar("T")

TRIES = 4
PAUSE = 0.5
"""Seconds before the second try; doubled before each further one."""

NATIVE: dict[str, Reader] = {
    "ChromaDocumentStore": chroma.read,
    "FAISSDocumentStore": faiss.read,
    "InMemoryDocumentStore": in_memory.read,
    "MilvusDocumentStore": milvus.read,
    "PgvectorDocumentStore": pgvector.read,
    "QdrantDocumentStore": qdrant.read,
}

_OURS = (TypeError, AttributeError, LookupError, NotImplementedError, ImportError, MemoryError)
"""What no second try mends. Clients name everything else as they like: Chroma's lost connection is a ValueError."""


def in_one_line(error: Exception) -> str:
    """
    What a store says, as a part of a sentence: some answer with a traceback.

    :param error: What it raised.
    """
    return " ".join(str(error).split())


def pages_of(store: Any, meta_fields: Sequence[str] = (), separator: str = "\n") -> Iterator[Page]:
    """
    Read all documents of a store with their vectors, as `rows_of` does, in the form of an index.

    :param store: The document store.
    :param meta_fields: Meta fields that were embedded with the content, as in the document embedder.
    :param separator: What stands between them, as in the document embedder.
    :returns: Pages of (id, text as it was embedded, vector).
    :raises DocumentStoreError: If the store can't be reached, or loses documents on the way.
    :raises ValueError: If opening the store would empty it.
    """
    for rows in rows_of(store):
        yield [(row.id, embedded_text(row, meta_fields, separator), row.vector) for row in rows]


def rows_of(store: Any) -> Iterator[list[Row]]:
    """
    Read all documents of a store with their vectors; nothing is written.

    A call that fails is tried again. What was read counts only if it is all that the store holds.

    :param store: The document store.
    :returns: Pages of documents.
    :raises DocumentStoreError: If the store can't be reached, or loses documents on the way.
    :raises ValueError: If opening the store would empty it.
    """
    _refuse_to_empty(store)
    name, seen = type(store).__name__, 0

    def retried(call: Callable[[], T]) -> T:
        try:
            return Retrying(
                stop=stop_after_attempt(TRIES),
                wait=wait_exponential(multiplier=PAUSE, max=8),
                retry=retry_if_exception(lambda error: isinstance(error, Exception) and not isinstance(error, _OURS)),
                before_sleep=lambda state: logger.warning("%s: %s Trying again.", name, state.outcome.exception()),  # type: ignore[union-attr]
                reraise=True,
            )(call)
        except _OURS:
            raise
        except Exception as error:
            msg = (
                f"{name} could not be read: {in_one_line(error)} ({TRIES} tries, after {seen} documents). "
                "Nothing of it is used: make sure that the store is up and reachable, and run again."
            )
            raise DocumentStoreError(msg) from error

    retried(store.count_documents)
    for rows in reader_of(store)(store, retried):
        seen += len(rows)
        yield rows
    held = retried(store.count_documents)
    if seen != held:
        msg = (
            f"{name} returned {seen} documents and holds {held}: run again while nothing writes to it. Nothing of what "
            "was read is used."
        )
        raise DocumentStoreError(msg)


def reader_of(store: Any) -> Reader:
    """
    The native reader of a store, or the protocol's.

    :param store: The document store.
    """
    known = (NATIVE[base.__name__] for base in type(store).__mro__ if base.__name__ in NATIVE)
    return next(known, read_by_protocol)


def is_embedded(store: Any) -> bool:
    """
    Whether a store lives in this process, where its asynchronous client would open another, empty one, or refuse.

    :param store: The document store.
    """
    if type(store).__name__ == "QdrantDocumentStore":
        return qdrant.is_local(store)
    return type(store).__name__ == "ChromaDocumentStore" and store._host is None


def read_by_protocol(store: Any, retried: Callable[[Callable[[], Any]], Any]) -> Iterator[list[Row]]:
    """
    Read any store with the one call that all have; the documents are in memory at once.

    :param store: The document store.
    :param retried: Calls a function, again if it fails.
    :returns: One page.
    """
    yield [Row(one.id, one.content, one.meta, one.embedding) for one in retried(store.filter_documents)]


def embedded_text(row: Row, meta_fields: Sequence[str], separator: str) -> str:
    """
    What a document embedder embeds of a document.

    :param row: The document.
    :param meta_fields: Meta fields that stand before the content.
    :param separator: What stands between them.
    """
    fields = [str(row.meta[name]) for name in meta_fields if row.meta.get(name) is not None]
    return separator.join([*fields, row.content or ""])


def _refuse_to_empty(store: Any) -> None:
    """Stores made for indexing may delete what they hold when they are first used."""
    opened = getattr(store, "_client", None) is not None or getattr(store, "_table_initialized", False)
    if not opened:
        refuse_to_recreate(store)


def refuse_to_recreate(store: Any) -> None:
    """
    Refuse a store whose settings delete the index whenever it is opened, as a later process will.

    :param store: The document store.
    :raises ValueError: If it has such a setting.
    """
    for setting in ("recreate_index", "recreate_table"):
        if getattr(store, setting, None) is True:
            msg = (
                f"{type(store).__name__} has {setting}=True, which deletes the index when the store is opened: leave "
                f"`{setting}` out here."
            )
            raise ValueError(msg)
