# SPDX-FileCopyrightText: 2026-present haystack-distill contributors
#
# SPDX-License-Identifier: Apache-2.0

"""Qdrant: scroll."""

from collections.abc import Iterator
from functools import partial
from typing import Any

from haystack_integrations.components.distill.stores.row import PAGE, Retried, Row


def read(store: Any, retried: Retried) -> Iterator[list[Row]]:
    """
    Read a QdrantDocumentStore in pages.

    :param store: The document store.
    :param retried: Calls a function, again if it fails.
    :returns: The pages.
    """
    from haystack_integrations.document_stores.qdrant.converters import DENSE_VECTORS_NAME

    # The local mode sorts all ids for every page.
    size = 10 * PAGE if is_local(store) else PAGE
    offset = None
    while True:
        scroll = partial(store._client.scroll, store.index, limit=size, with_payload=True, with_vectors=True)
        records, offset = retried(partial(scroll, offset=offset))
        rows = []
        for record in records:
            vector = record.vector.get(DENSE_VECTORS_NAME) if isinstance(record.vector, dict) else record.vector
            payload = record.payload
            rows.append(Row(payload["id"], payload.get("content"), payload.get("meta") or {}, vector or None))
        yield rows
        if store._check_stop_scrolling(offset):
            return


def is_local(store: Any) -> bool:
    """
    Whether a store runs inside this process.

    :param store: The document store.
    """
    return store.location == ":memory:" or store.path is not None
