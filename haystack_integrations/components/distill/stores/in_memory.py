# SPDX-FileCopyrightText: 2026-present haystack-distill contributors
#
# SPDX-License-Identifier: Apache-2.0

"""InMemory: the documents themselves; its protocol hides their vectors where `return_embedding` is off."""

from collections.abc import Iterator
from typing import Any

from haystack_integrations.components.distill.stores.row import PAGE, Retried, Row


def read(store: Any, retried: Retried) -> Iterator[list[Row]]:
    """
    Read an InMemoryDocumentStore in pages.

    :param store: The document store.
    :param retried: Not needed: there is no connection.
    :returns: The pages.
    """
    del retried
    documents = list(store.storage.values())
    for start in range(0, len(documents), PAGE):
        yield [Row(one.id, one.content, one.meta, one.embedding) for one in documents[start : start + PAGE]]
