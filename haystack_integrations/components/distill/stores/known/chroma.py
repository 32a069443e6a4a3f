"""Chroma: `get` with limit and offset."""

from collections.abc import Iterator
from functools import partial
from typing import Any

from haystack_integrations.components.distill.stores.base import PAGE, InYaml, Retried, Row, Search, StoreKind


def read(store: Any, retried: Retried) -> Iterator[list[Row]]:
    """Read a ChromaDocumentStore in pages."""
    include = ["embeddings", "documents", "metadatas"]
    start = 0
    while True:
        page = retried(partial(store._collection.get, limit=PAGE, offset=start, include=include))
        if not page["ids"]:
            return
        columns = zip(page["ids"], page["documents"], page["metadatas"], page["embeddings"], strict=True)
        yield [Row(key, content, dict(meta or {}), vector) for key, content, meta, vector in columns]
        start += len(page["ids"])


def search(store: Any) -> Search:
    """Give the search by vector, which takes and returns batches."""
    return lambda query, top_k: store.search_embeddings([query], top_k)[0]


KIND = StoreKind(
    name="ChromaDocumentStore",
    title="Chroma",
    similarities={"l2": "euclidean", "cosine": "cosine", "ip": "dot_product"},
    similarity=lambda store: store._distance_function,
    search=search,
    read=read,
    effort="`hnsw:search_ef` in `metadata` of the store, for a collection made anew",
    is_embedded=lambda store: store._host is None,
    memory_only=lambda store: (
        "set `persist_path` or `host`" if store._persist_path is None and store._host is None else None
    ),
    shared_by="give both the same `collection_name`, and the same `persist_path` or `host`",
    in_yaml=InYaml(
        store="haystack_integrations.document_stores.chroma.document_store.ChromaDocumentStore",
        parameters=lambda _, similarity: {"persist_path": "index", "distance_function": similarity},
        retriever="haystack_integrations.components.retrievers.chroma.retriever.ChromaEmbeddingRetriever",
        packages=("chroma-haystack",),
    ),
)
