"""Reading a whole store in pages: natively where the store is known, through the protocol otherwise."""

import logging
from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeVar

from haystack.document_stores.errors import DocumentStoreError
from tenacity import Retrying, retry_if_exception, stop_after_attempt, wait_exponential

from haystack_distill.data.index import Page
from haystack_integrations.components.distill.stores.base import Row
from haystack_integrations.components.distill.stores.known import kind_of

logger = logging.getLogger(__name__)

T = TypeVar("T")

TRIES = 4
PAUSE = 0.5
"""Seconds before the second try; doubled before each further one."""

_LASTING = (TypeError, AttributeError, LookupError, NotImplementedError, ImportError, MemoryError)
"""What no second try mends. Clients name everything else as they like: Chroma's lost connection is a ValueError."""


def _may_pass(error: BaseException) -> bool:
    return isinstance(error, Exception) and not isinstance(error, _LASTING)


def in_one_line(error: Exception) -> str:
    """Put what a store says into a sentence: some answer with a traceback."""
    return " ".join(str(error).split())


def pages_of(store: Any, meta_fields: Sequence[str] = (), separator: str = "\n") -> Iterator[Page]:
    """
    Read all documents of a store with their vectors, as `rows_of` does, in the form of an index.

    :returns: Pages of (id, text as it was embedded, vector, and the meta fields it begins with, if any).
    """
    for rows in rows_of(store):
        yield [_entry(row, meta_fields, separator) for row in rows]


def rows_of(store: Any) -> Iterator[list[Row]]:
    """
    Read all documents of a store with their vectors; nothing is written.

    A call that fails is tried again. What was read counts only if it is all that the store holds.

    :raises DocumentStoreError: If the store can't be reached, or loses documents on the way.
    :raises ValueError: If opening the store would empty it.
    """
    kind, name, seen = kind_of(store), type(store).__name__, 0
    if not kind.is_open(store):
        refuse_to_recreate(store)

    def retried(call: Callable[[], T]) -> T:
        try:
            return Retrying(
                stop=stop_after_attempt(TRIES),
                wait=wait_exponential(multiplier=PAUSE, max=8),
                retry=retry_if_exception(_may_pass),
                before_sleep=lambda state: logger.warning("%s: %s Trying again.", name, state.outcome.exception()),  # type: ignore[union-attr]
                reraise=True,
            )(call)
        except _LASTING:
            raise
        except Exception as error:
            msg = (
                f"{name} could not be read: {in_one_line(error)} ({TRIES} tries, after {seen} documents). "
                "Nothing of it is used: make sure that the store is up and reachable, and run again."
            )
            raise DocumentStoreError(msg) from error

    retried(store.count_documents)
    for rows in kind.read(store, retried):
        seen += len(rows)
        yield rows
    held = retried(store.count_documents)
    if seen != held:
        msg = (
            f"{name} returned {seen} documents and holds {held}: run again while nothing writes to it. Nothing of what "
            "was read is used."
        )
        raise DocumentStoreError(msg)


def is_embedded(store: Any) -> bool:
    """Whether a store lives in this process, where its asynchronous client would open another, empty one, or refuse."""
    return kind_of(store).is_embedded(store)


def embedded_text(row: Row, meta_fields: Sequence[str], separator: str) -> str:
    """Build the text that a document embedder embeds of a document: meta fields, then the content."""
    fields = [str(row.meta[name]) for name in meta_fields if row.meta.get(name) is not None]
    return separator.join([*fields, row.content or ""])


def _entry(row: Row, meta_fields: Sequence[str], separator: str) -> Any:
    """Give a row of a page; meta fields that were embedded are the title of its text."""
    text = embedded_text(row, meta_fields, separator)
    title = text.removesuffix(row.content or "").removesuffix(separator)
    return (row.id, text, row.vector, title) if title else (row.id, text, row.vector)


def refuse_to_recreate(store: Any) -> None:
    """Refuse, with a ValueError, a store whose settings delete the index whenever it is opened, as it will be later."""
    for name in kind_of(store).emptied_by:
        if getattr(store, name, None) is True:
            msg = (
                f"{type(store).__name__} has {name}=True, which deletes the index when the store is opened: leave "
                f"`{name}` out here."
            )
            raise ValueError(msg)
