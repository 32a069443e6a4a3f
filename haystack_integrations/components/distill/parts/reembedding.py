# SPDX-FileCopyrightText: 2026-present haystack-distill contributors
#
# SPDX-License-Identifier: Apache-2.0

"""The documents of one store embedded anew into another, and the store that a pointer names."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from haystack import Document
from haystack.core.serialization import import_class_by_name
from haystack.document_stores.types import DuplicatePolicy
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from haystack_distill.evaluation.switching import Serving, read_pointer
from haystack_integrations.components.distill.stores import embedded_text, rows_of
from haystack_integrations.components.distill.stores.reading import refuse_to_recreate
from haystack_integrations.components.distill.stores.row import Row

WRITE = 256
"""Documents that are embedded and written at a time: what a kill can cost."""


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
    Those without a vector in the source get none. Content, meta data and ids are kept; blobs and sparse embeddings are
    not.

    :param source: The store to read.
    :param target: The store to write.
    :param encoder: Has `encode_documents`.
    :param meta_fields: Meta fields that are embedded with the content.
    :param separator: What stands between them.
    :param progress: Whether to show a progress bar on stderr.
    :returns: How many documents were written.
    :raises DocumentStoreError: If a store can't be read to its end.
    :raises ValueError: If the target holds documents that the source does not have.
    """
    present = {row.id: _mark(row) for rows in rows_of(target) for row in rows} if target.count_documents() else {}
    columns = (TextColumn("Embedding"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), TimeRemainingColumn())
    written = 0
    with Progress(*columns, console=Console(stderr=True), disable=not progress) as bar:
        task = bar.add_task("", total=source.count_documents())
        for rows in rows_of(source):
            for start in range(0, len(rows), WRITE):
                part = rows[start : start + WRITE]
                missing = [row for row in part if present.pop(row.id, None) != _mark(row)]
                if missing:
                    documents = _embedded(missing, encoder, meta_fields, separator)
                    written += target.write_documents(documents, policy=DuplicatePolicy.OVERWRITE)
                bar.advance(task, len(part))
    if present:
        msg = (
            f"The new index holds {len(present)} documents that the old one lacks ({sorted(present)[0]!r} is one): "
            "they were deleted meanwhile, or belong to something else. Name an empty index."
        )
        raise ValueError(msg)
    if hasattr(target, "save") and getattr(target, "index_path", None):  # FAISS writes when it is told to
        Path(target.index_path).parent.mkdir(parents=True, exist_ok=True)
        target.save(target.index_path)
    return written


def open_store(serving: Serving) -> Any:
    """
    Open the store that a pointer names.

    :param serving: From `read_pointer`.
    :returns: The document store.
    :raises ValueError: If opening it would empty it.
    """
    kind: Any = import_class_by_name(serving.document_store["type"])
    store = kind.from_dict(serving.document_store)
    refuse_to_recreate(store)
    return store


def serving_now(pointer: str) -> Serving:
    """
    What a pointer points at.

    :param pointer: The file.
    :raises FileNotFoundError: If there is no such file.
    :raises ValueError: If it is no pointer.
    """
    serving = read_pointer(pointer)
    if serving is None:
        msg = f"The pointer {pointer} is missing: IndexSwitcher writes it, or `haystack-distill reindex`."
        raise FileNotFoundError(msg)
    return serving


def refuse_what_does_not_last(store: Any) -> None:
    """
    Refuse a store that is gone with this process: a pointer to it would serve nothing.

    :param store: The document store.
    :raises ValueError: If it lives in memory.
    """
    kind = type(store).__name__
    way_out = {
        "InMemoryDocumentStore": "use another store",
        "ChromaDocumentStore": None if _lasts_in_chroma(store) else "set `persist_path` or `host`",
        "FAISSDocumentStore": "set `index_path`" if getattr(store, "index_path", None) is None else None,
        "QdrantDocumentStore": "set `path` or `url`" if getattr(store, "location", None) == ":memory:" else None,
    }.get(kind)
    if way_out:
        msg = f"The new index is a {kind} that keeps documents in memory only, so nothing could serve it: {way_out}."
        raise ValueError(msg)


def _lasts_in_chroma(store: Any) -> bool:
    return getattr(store, "_persist_path", None) is not None or getattr(store, "_host", None) is not None


def _embedded(rows: list[Row], encoder: Any, meta_fields: Sequence[str], separator: str) -> list[Document]:
    texts = [embedded_text(row, meta_fields, separator) for row in rows if row.vector is not None]
    vectors = iter(encoder.encode_documents(texts) if texts else np.empty((0, 0)))
    return [
        Document(
            id=row.id,
            content=row.content,
            meta=row.meta,
            embedding=None if row.vector is None else next(vectors).tolist(),
        )
        for row in rows
    ]


def _mark(row: Row) -> tuple[Any, ...]:
    return row.content, row.meta, row.vector is None
