"""What each store returns of an encoder's own exact top ten, and that the setting that is named raises it."""

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from haystack import Document
from haystack.utils import Secret

from haystack_distill import KaleQueryEncoder, RetrievalEvaluator
from haystack_integrations.components.distill.stores.known import kind_of
from tests.conftest import sentences, write_beir
from tests.stores.conftest import BACKENDS, DIM


def faiss(effort: int, documents: list[Document], _: Any) -> Any:
    faiss_of_haystack = pytest.importorskip("haystack_integrations.document_stores.faiss")
    from faiss import ParameterSpace

    store = faiss_of_haystack.FAISSDocumentStore(embedding_dim=DIM, index_string="HNSW8,Flat")
    store.write_documents(documents)
    ParameterSpace().set_index_parameter(store.index, "efSearch", effort)
    return store


def chroma(effort: int, documents: list[Document], _: Any) -> Any:
    chroma_of_haystack = pytest.importorskip("haystack_integrations.document_stores.chroma")
    store = chroma_of_haystack.ChromaDocumentStore(
        collection_name=f"approximate{effort}",
        distance_function="cosine",
        metadata={"hnsw:search_ef": effort, "hnsw:M": 4},
    )
    store.write_documents(documents)
    return store


def pgvector(effort: int, documents: list[Document], servers: Any) -> Any:
    pytest.importorskip("pgserver", reason="pgvector is not run: no pgserver here (docs/stores.md)")
    pgvector_of_haystack = pytest.importorskip("haystack_integrations.document_stores.pgvector")
    os.environ["PG_CONN_STR"] = servers("pgvector")
    store = pgvector_of_haystack.PgvectorDocumentStore(
        connection_string=Secret.from_env_var("PG_CONN_STR"),
        table_name=f"approximate{effort}",
        embedding_dimension=DIM,
        vector_function="cosine_similarity",
        search_strategy="hnsw",
        hnsw_index_name=f"approximate{effort}_hnsw",
        keyword_index_name=f"approximate{effort}_keyword",
        hnsw_ef_search=effort,
        hnsw_index_creation_kwargs={"m": 4, "ef_construction": 16},
    )
    store.write_documents(documents)
    return store


@pytest.fixture(scope="module")
def many(teacher) -> list[Document]:
    """So many that a search that looks at ten of them misses some."""
    texts = sentences(1500, seed=11)
    vectors = teacher.encode_documents(texts).tolist()
    return [Document(id=f"m{row}", content=text, embedding=vectors[row]) for row, text in enumerate(texts)]


def evaluated(store: Any, bert: str, table: Path, queries: Path, output: Path) -> dict[str, Any]:
    evaluator = RetrievalEvaluator(
        document_store=store, teacher=bert, students={"a table": str(table)}, output=str(output)
    )
    return evaluator.run(queries=str(queries))["metrics"]


def returned(name: str, store: Any, encoder: str, documents: list[Document], queries: list[str]) -> float:
    """The share of the exact ten, in numpy, that Haystack's retriever returns."""
    vectors = np.array([document.embedding for document in documents])
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    backend = next(backend for backend in BACKENDS if backend.name == name)
    retriever, embedder, shares = backend.retriever_of(store, top_k=10), KaleQueryEncoder(encoder, backend="torch"), []
    for query in queries:
        embedding = embedder.run(query)["embedding"]
        exact = {documents[row].id for row in np.argsort(-(vectors @ np.array(embedding)))[:10]}
        found = {document.id for document in retriever.run(query_embedding=embedding)["documents"]}
        shares.append(len(exact & found) / 10)
    return float(np.mean(shares))


@pytest.mark.parametrize("make", [faiss, chroma, pgvector])
def test_an_approximate_store_returns_less_until_the_named_setting_is_raised(
    make, many, bert, table, servers, tmp_path
):
    queries = sentences(60, seed=12, length=4)
    rows = range(len(queries))
    asked = write_beir(
        tmp_path / "asked",
        {document.id: document.content for document in many},
        {f"q{n}": queries[n] for n in rows},
        {"test": {f"q{n}": f"m{n}" for n in rows}},
    )
    recovered = []
    for effort in (10, 1000):
        store = make(effort, many, servers)
        metrics = evaluated(store, bert, table, asked, tmp_path / f"e{effort}")
        for name, encoder in (("teacher", bert), ("a table", str(table))):
            assert metrics[name]["recovery"] == pytest.approx(
                returned(make.__name__, store, encoder, many, queries), abs=1e-9
            ), name
        recovered.append([metrics[name]["recovery"] for name in ("teacher", "a table")])
        less = metrics["a table"]["recovery"] <= metrics["teacher"]["recovery"] - 0.01
        assert (kind_of(store).effort in metrics.get("recovery_advice", "")) == less
        page = (tmp_path / f"e{effort}" / "report.html").read_text()
        assert f"<td>{100 * metrics['a table']['recovery']:.1f} %</td>" in page
        if hasattr(store, "close"):
            store.close()
    little, much = recovered
    assert max(little) < 1
    assert min(much) > 0.99


def test_a_store_that_searches_exactly_returns_all(filled, bert, table, beir, tmp_path):
    metrics = evaluated(filled, bert, table, beir, tmp_path / "e")
    assert "recovery_advice" not in metrics
    page = (tmp_path / "e" / "report.html").read_text()
    if kind_of(filled).effort is None:
        assert "recovery" not in metrics["teacher"]
        assert "<th>recovery</th>" not in page
        return
    assert metrics["teacher"]["recovery"] == metrics["a table"]["recovery"] == 1
    assert "<th>recovery</th>" in page


def test_fewer_than_ten_documents(opener, documents, bert, table, tmp_path):
    text = documents[0].content
    few = write_beir(tmp_path / "few", {"d0": text}, {"q0": text}, {"test": {"q0": "d0"}})
    metrics = evaluated(opener(documents[:4]), bert, table, few, tmp_path / "e")
    assert metrics["teacher"].get("recovery", 1) == metrics["a table"].get("recovery", 1) == 1
