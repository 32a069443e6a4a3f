"""pgvector: pages by primary key, which need no open transaction and go on after a lost connection."""

from collections.abc import Iterator
from typing import Any

from haystack_integrations.components.distill.stores.base import PAGE, InYaml, Retried, Row, StoreKind


def read(store: Any, retried: Retried) -> Iterator[list[Row]]:
    """Read a PgvectorDocumentStore in pages; a call that is made again connects anew."""
    from psycopg.sql import SQL, Identifier

    query = SQL("SELECT id, content, meta, embedding FROM {} WHERE id > %s ORDER BY id LIMIT %s").format(
        Identifier(store.schema_name, store.table_name)
    )

    last = ""

    def page() -> Any:
        store._ensure_db_setup()
        return store._connection.execute(query, (last, PAGE)).fetchall()

    while rows := retried(page):
        # Depending on pgvector's version vectors are its own objects or arrays.
        yield [
            Row(key, content, meta or {}, vector.to_list() if hasattr(vector, "to_list") else vector)
            for key, content, meta, vector in rows
        ]
        last = rows[-1][0]


KIND = StoreKind(
    name="PgvectorDocumentStore",
    title="pgvector",
    similarities={"cosine_similarity": "cosine", "inner_product": "dot_product", "l2_distance": "euclidean"},
    similarity=lambda store: store.vector_function,
    read=read,
    effort="`hnsw_ef_search` of the store",
    emptied_by=("recreate_table",),
    is_open=lambda store: store._table_initialized,
    in_yaml=InYaml(
        store="haystack_integrations.document_stores.pgvector.document_store.PgvectorDocumentStore",
        parameters=lambda dim, similarity: {"embedding_dimension": dim, "vector_function": similarity},
        retriever="haystack_integrations.components.retrievers.pgvector.embedding_retriever.PgvectorEmbeddingRetriever",
        keyword="haystack_integrations.components.retrievers.pgvector.keyword_retriever.PgvectorKeywordRetriever",
        packages=("pgvector-haystack",),
    ),
)
