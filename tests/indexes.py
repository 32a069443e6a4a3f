"""Real stores on disk, and a switcher from one to another."""

from pathlib import Path

import pytest
from haystack import Document

from haystack_distill import IndexSwitcher

FAISS = pytest.importorskip("haystack_integrations.document_stores.faiss", reason="faiss-haystack is not installed")
QDRANT = pytest.importorskip("haystack_integrations.document_stores.qdrant", reason="qdrant-haystack is not installed")

RETRIEVERS = {
    "faiss": "haystack_integrations.components.retrievers.faiss.FAISSEmbeddingRetriever",
    "qdrant": "haystack_integrations.components.retrievers.qdrant.QdrantEmbeddingRetriever",
}


def make_store(kind: str, path: Path, documents: list[Document] | None = None):
    if kind == "faiss":
        store = FAISS.FAISSDocumentStore(index_path=str(path), embedding_dim=32)
    else:
        store = QDRANT.QdrantDocumentStore(path=str(path), embedding_dim=32, similarity="cosine", progress_bar=False)
    if documents:
        store.write_documents(documents)
        if kind == "faiss":
            store.save(path)
    return store


def close(*stores) -> None:
    """Embedded Qdrant locks its folder."""
    for store in stores:
        if hasattr(store, "close"):
            store.close()


def switcher(kind, place, documents, bert, new, **options) -> IndexSwitcher:
    return IndexSwitcher(
        document_store=make_store(kind, place / "old", documents),
        teacher=bert,
        new_document_store=make_store(kind, place / "new"),
        model=new,
        pointer=str(place / "current.json"),
        progress_bar=False,
        **options,
    )
