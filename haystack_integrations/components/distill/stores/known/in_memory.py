"""InMemory: the documents themselves, because its protocol hides their vectors where `return_embedding` is off."""

from collections.abc import Iterator
from typing import Any

from haystack_integrations.components.distill.stores.base import PAGE, InYaml, Retried, Row, StoreKind, row_of


def read(store: Any, _: Retried) -> Iterator[list[Row]]:
    """Read an InMemoryDocumentStore in pages."""
    documents = list(store.storage.values())
    for start in range(0, len(documents), PAGE):
        yield [row_of(document) for document in documents[start : start + PAGE]]


KIND = StoreKind(
    name="InMemoryDocumentStore",
    title="InMemory",
    similarities={"dot_product": "dot_product", "cosine": "cosine"},
    read=read,
    effort=None,
    vectors=lambda store, ids: {key: store.storage[key].embedding for key in ids if key in store.storage},
    memory_only=lambda _: "use another store",
    shared_by="give both the same `index`, and run both pipelines in one process",
    random_setting="index",
    in_yaml=InYaml(
        store="haystack.document_stores.in_memory.document_store.InMemoryDocumentStore",
        parameters=lambda _, similarity: {"index": "documents", "embedding_similarity_function": similarity},
        retriever="haystack.components.retrievers.in_memory.embedding_retriever.InMemoryEmbeddingRetriever",
        keyword="haystack.components.retrievers.in_memory.bm25_retriever.InMemoryBM25Retriever",
    ),
)
