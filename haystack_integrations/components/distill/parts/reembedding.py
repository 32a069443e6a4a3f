"""The documents of one store embedded anew into another, and the store that a pointer names."""

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any

from haystack import Document
from haystack.core.serialization import import_class_by_name
from haystack.document_stores.types import DuplicatePolicy

from haystack_distill.evaluation.pointer import Serving, read_pointer
from haystack_distill.files.bulk import bulk, one_result
from haystack_distill.files.progress import progress_bar
from haystack_integrations.components.distill.stores import embedded_text, rows_of
from haystack_integrations.components.distill.stores.base import Row
from haystack_integrations.components.distill.stores.known import kind_of
from haystack_integrations.components.distill.stores.reading import refuse_to_recreate

WRITE = 256
"""Documents that are embedded and written at a time, and so the most that a kill can cost."""


def reembed(
    source: Any,
    target: Any,
    encoder: Any,
    meta_fields: Sequence[str] = (),
    separator: str = "\n",
    *,
    progress: bool = True,
) -> int:
    """
    Fill a store with the documents of another, embedded by another encoder.

    Documents that the target holds already as they are in the source are left alone, so that a killed run goes on.
    Documents without a vector in the source get none. Content, meta data and ids are kept; blobs and sparse embeddings
    are not.

    :param encoder: A `BiEncoder`; its `num_workers` processes embed.
    :param meta_fields: Meta fields that are embedded with the content.
    :raises DocumentStoreError: If a store can't be read to its end.
    :raises ValueError: If the target holds documents that the source does not have.
    """
    present = {row.id: _mark(row) for rows in rows_of(target) for row in rows} if target.count_documents() else {}
    done, written = len(present), 0
    make = partial(one_result, partial(_embedding, encoder.maker(), meta_fields, separator))
    with progress_bar("Embedding", source.count_documents(), done, shown=progress) as show:
        for documents in bulk(_missing(source, present), make, encoder.num_workers):
            written += target.write_documents(documents, policy=DuplicatePolicy.OVERWRITE)
            show(done + written)
    if present:
        msg = (
            f"The new index holds {len(present)} documents that the old one lacks ({sorted(present)[0]!r} is one): "
            "they were deleted meanwhile, or belong to something else. Name an empty index."
        )
        raise ValueError(msg)
    kind_of(target).save(target)
    return written


def open_store(serving: Serving) -> Any:
    """Open the document store that a pointer names; a ValueError if opening it would empty it."""
    store_class: Any = import_class_by_name(serving.document_store["type"])
    store = store_class.from_dict(serving.document_store)
    refuse_to_recreate(store)
    return store


def serving_now(pointer: str) -> Serving:
    """Read what a pointer points at; a FileNotFoundError if there is none, a ValueError if it is no pointer."""
    serving = read_pointer(pointer)
    if serving is None:
        msg = f"The pointer {pointer} is missing: IndexSwitcher writes it, or `haystack-distill reindex`."
        raise FileNotFoundError(msg)
    return serving


def refuse_what_does_not_last(store: Any) -> None:
    """Refuse, with a ValueError, a store that is gone with this process: a pointer to it would serve nothing."""
    way_out = kind_of(store).memory_only(store)
    if way_out:
        msg = (
            f"The new index is a {type(store).__name__} that keeps documents in memory only, so nothing could serve "
            f"it: {way_out}."
        )
        raise ValueError(msg)


def _missing(source: Any, present: dict[str, Any]) -> Iterator[list[Row]]:
    """
    Read what is not in the target as it is in the source, in pieces; of a vector only whether there is one.

    :param present: What the target holds; it is left with what the source does not have.
    """
    for rows in rows_of(source):
        for start in range(0, len(rows), WRITE):
            part = [row for row in rows[start : start + WRITE] if present.pop(row.id, None) != _mark(row)]
            if part:
                yield [row._replace(vector=None if row.vector is None else []) for row in part]


def _embedding(
    make: Callable[[], Any], meta_fields: Sequence[str], separator: str
) -> Callable[[list[Row]], list[Document]]:
    encoder = make()
    return lambda rows: _embedded(rows, encoder, meta_fields, separator)


def _embedded(rows: list[Row], encoder: Any, meta_fields: Sequence[str], separator: str) -> list[Document]:
    texts = [embedded_text(row, meta_fields, separator) for row in rows if row.vector is not None]
    vectors = iter(encoder.encode_documents(texts).tolist() if texts else ())
    embeddings = [None if row.vector is None else next(vectors) for row in rows]
    return [
        Document(id=row.id, content=row.content, meta=row.meta, embedding=embedding)
        for row, embedding in zip(rows, embeddings, strict=True)
    ]


def _mark(row: Row) -> tuple[Any, ...]:
    return row.content, row.meta, row.vector is None
