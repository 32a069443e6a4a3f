"""Milvus: a query iterator, because its protocol call returns 10,000 documents at most and does not say so."""

from collections.abc import Iterator
from typing import Any

from haystack_integrations.components.distill.stores.base import PAGE, InYaml, Retried, Row, StoreKind, row_of


def read(store: Any, retried: Retried) -> Iterator[list[Row]]:
    """Read a MilvusDocumentStore in pages; a call that is made again goes on where the iterator was."""
    if not store._collection_exists:  # the first write makes it
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
        while page := retried(iterator.next):
            # The store knows which vector stands for a missing one.
            yield [row_of(store._parse_document(dict(entry))) for entry in page]
    finally:
        iterator.close()


KIND = StoreKind(
    name="MilvusDocumentStore",
    title="Milvus",
    similarities={"L2": "euclidean", "COSINE": "cosine", "IP": "dot_product"},
    similarity=lambda store: (store.search_params or store.index_params or {}).get("metric_type", "L2"),
    read=read,
    effort="`ef` (of an IVF index `nprobe`) in `search_params` of the store",
    in_yaml=InYaml(
        store="milvus_haystack.document_store.MilvusDocumentStore",
        parameters=lambda _, similarity: {
            "connection_args": {"uri": "index.db"},
            "index_params": {"metric_type": similarity, "index_type": "FLAT", "params": {}},
        },
        retriever="milvus_haystack.milvus_embedding_retriever.MilvusEmbeddingRetriever",
        packages=("milvus-haystack", "milvus-lite"),
    ),
)
