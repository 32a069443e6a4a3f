# SPDX-FileCopyrightText: 2026-present haystack-distill contributors
#
# SPDX-License-Identifier: Apache-2.0

"""Milvus: a query iterator. Its protocol call returns 10,000 documents at most and does not say so."""

from collections.abc import Iterator
from typing import Any

from haystack_integrations.components.distill.stores.row import PAGE, Retried, Row


def read(store: Any, retried: Retried) -> Iterator[list[Row]]:
    """
    Read a MilvusDocumentStore in pages.

    :param store: The document store.
    :param retried: Calls a function, again if it fails; the iterator goes on where it was.
    :returns: The pages.
    """
    if not store._collection_exists:  # made by the first write
        return
    iterator = retried(
        lambda: store.client.query_iterator(
            store.collection_name,
            batch_size=PAGE,
            filter="",
            output_fields=store._get_output_fields(),
            partition_names=store.partition_names,
        )
    )
    try:
        while found := retried(iterator.next):
            documents = [store._parse_document(dict(one)) for one in found]  # knows what stands for a missing vector
            yield [Row(one.id, one.content, one.meta, one.embedding) for one in documents]
    finally:
        iterator.close()
