"""Qdrant: `scroll`."""

from collections.abc import Iterator
from functools import partial
from typing import Any

from haystack_integrations.components.distill.stores.base import PAGE, InYaml, Retried, Row, Search, StoreKind


def read(store: Any, retried: Retried) -> Iterator[list[Row]]:
    """Read a QdrantDocumentStore in pages."""
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


def search(store: Any) -> Search:
    """Give the search by vector."""
    return lambda query, top_k: store._query_by_embedding(query, top_k=top_k, return_embedding=True)


def is_local(store: Any) -> bool:
    """Whether a store runs inside this process."""
    return store.location == ":memory:" or store.path is not None


KIND = StoreKind(
    name="QdrantDocumentStore",
    title="Qdrant",
    similarities={"cosine": "cosine", "dot_product": "dot_product", "l2": "euclidean"},
    similarity=lambda store: store.similarity,
    search=search,
    read=read,
    # Haystack passes no effort of searching on, and Qdrant then takes that of building.
    effort="`ef_construct` in `hnsw_config` of the store, for a collection made anew",
    is_embedded=is_local,
    emptied_by=("recreate_index",),
    memory_only=lambda store: "set `path` or `url`" if store.location == ":memory:" else None,
    shared_by="give both the same `index`, and the same `path` or `url` (not `:memory:`)",
    in_yaml=InYaml(
        store="haystack_integrations.document_stores.qdrant.document_store.QdrantDocumentStore",
        parameters=lambda dim, similarity: {"path": "index", "embedding_dim": dim, "similarity": similarity},
        retriever="haystack_integrations.components.retrievers.qdrant.retriever.QdrantEmbeddingRetriever",
        packages=("qdrant-haystack",),
    ),
)
