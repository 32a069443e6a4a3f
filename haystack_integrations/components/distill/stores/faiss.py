# SPDX-FileCopyrightText: 2026-present haystack-distill contributors
#
# SPDX-License-Identifier: Apache-2.0

"""FAISS: the documents beside the index, and `reconstruct_batch` for those that don't carry their vector."""

from collections.abc import Iterator
from typing import Any

import numpy as np

from haystack_integrations.components.distill.stores.row import PAGE, Retried, Row


def read(store: Any, retried: Retried) -> Iterator[list[Row]]:
    """
    Read a FAISSDocumentStore in pages.

    :param store: The document store.
    :param retried: Not needed: there is no connection.
    :returns: The pages.
    """
    del retried
    documents = list(store.documents.values())
    for start in range(0, len(documents), PAGE):
        page = documents[start : start + PAGE]
        bare = [one.id for one in page if one.embedding is None and one.id in store.inverse_id_map]
        found = stored_vectors(store, bare)
        yield [
            Row(one.id, one.content, one.meta, found.get(one.id) if one.embedding is None else one.embedding)
            for one in page
        ]


def stored_vectors(store: Any, document_ids: list[str]) -> dict[str, np.ndarray]:
    """
    The vectors that the index itself holds.

    :param store: The document store.
    :param document_ids: Ids of documents that have a vector.
    :returns: Id -> vector.
    """
    import faiss

    if not document_ids:
        return {}
    own = faiss.vector_to_array(store.index.id_map)  # ascends: documents are only ever appended
    rows = np.searchsorted(own, [store.inverse_id_map[key] for key in document_ids])
    return dict(zip(document_ids, store.index.index.reconstruct_batch(rows), strict=True))
