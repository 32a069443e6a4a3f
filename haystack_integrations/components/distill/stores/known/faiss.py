"""FAISS: the documents beside the index, and `reconstruct_batch` for those that don't carry their vector."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from haystack_integrations.components.distill.stores.base import PAGE, InYaml, Retried, Row, StoreKind, row_of


def read(store: Any, _: Retried) -> Iterator[list[Row]]:
    """Read a FAISSDocumentStore in pages."""
    documents = list(store.documents.values())
    for start in range(0, len(documents), PAGE):
        page = [row_of(document) for document in documents[start : start + PAGE]]
        in_index = vectors(store, [row.id for row in page if row.vector is None])
        yield [row._replace(vector=in_index[row.id]) if row.id in in_index else row for row in page]


def vectors(store: Any, document_ids: list[str]) -> dict[str, np.ndarray]:
    """Give those of the documents' vectors that the index itself holds."""
    import faiss

    in_index = [key for key in document_ids if key in store.inverse_id_map]
    if not in_index:
        return {}
    numbers = faiss.vector_to_array(store.index.id_map)  # ascends, because documents are only ever appended
    rows = np.searchsorted(numbers, [store.inverse_id_map[key] for key in in_index])
    return dict(zip(in_index, store.index.index.reconstruct_batch(rows), strict=True))


def save(store: Any) -> None:
    """Write a FAISSDocumentStore to its `index_path`, if it has one."""
    if store.index_path:
        Path(store.index_path).parent.mkdir(parents=True, exist_ok=True)
        store.save(store.index_path)


KIND = StoreKind(
    name="FAISSDocumentStore",
    title="FAISS",
    similarities={"l2": "euclidean"},
    similarity=lambda _: "l2",
    read=read,
    # The store has no setting of its own for it, and writes that of its index with the index.
    effort="`efSearch` (of an IVF index `nprobe`) of the store's `index` with `faiss.ParameterSpace`, then `save` it",
    vectors=vectors,
    memory_only=lambda store: "set `index_path`" if store.index_path is None else None,
    save=save,
    shared_by="call `save` after indexing and give both the same `index_path`",
    in_yaml=InYaml(
        store="haystack_integrations.document_stores.faiss.document_store.FAISSDocumentStore",
        parameters=lambda dim, _: {"index_path": "index/documents", "embedding_dim": dim},
        retriever="haystack_integrations.components.retrievers.faiss.embedding_retriever.FAISSEmbeddingRetriever",
        packages=("faiss-haystack",),
    ),
)
