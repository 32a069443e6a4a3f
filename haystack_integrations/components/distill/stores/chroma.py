# SPDX-FileCopyrightText: 2026-present haystack-distill contributors
#
# SPDX-License-Identifier: Apache-2.0

"""Chroma: `get` with limit and offset."""

from collections.abc import Iterator
from functools import partial
from typing import Any

from haystack_integrations.components.distill.stores.row import PAGE, Retried, Row


def read(store: Any, retried: Retried) -> Iterator[list[Row]]:
    """
    Read a ChromaDocumentStore in pages.

    :param store: The document store.
    :param retried: Calls a function, again if it fails.
    :returns: The pages.
    """
    include = ["embeddings", "documents", "metadatas"]
    start = 0
    while True:
        found = retried(partial(store._collection.get, limit=PAGE, offset=start, include=include))
        if not found["ids"]:
            return
        columns = zip(found["ids"], found["documents"], found["metadatas"], found["embeddings"], strict=True)
        yield [Row(key, content, dict(meta or {}), vector) for key, content, meta, vector in columns]
        start += len(found["ids"])
