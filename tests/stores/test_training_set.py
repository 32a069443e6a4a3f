"""TrainingSetBuilder over every store: candidates in the store's order, scores from vectors, texts along."""

import json

import numpy as np
from haystack.components.retrievers.in_memory import InMemoryEmbeddingRetriever
from haystack.document_stores.in_memory import InMemoryDocumentStore

from haystack_distill import KaleQueryEncoder, TrainingSetBuilder
from haystack_distill.data.training_set import TrainingSet


def test_candidates_of_every_store(backend, filled, bert, teacher, documents, tmp_path):
    queries = {"q1": "river bridge stone winter", "q2": "engine doctor"}
    lines = [json.dumps({"_id": key, "text": text}) for key, text in queries.items()]
    (tmp_path / "queries.jsonl").write_text("\n".join(lines))
    TrainingSetBuilder(
        retriever=backend.retriever_of(filled),
        text_embedder=KaleQueryEncoder(model=bert),
        top_k=5,
        output=str(tmp_path / "set"),
        progress_bar=False,
    ).run(queries=str(tmp_path / "queries.jsonl"))
    rows = {row.query_id: row for row in TrainingSet.open(tmp_path / "set")}
    by_id = {one.id: one for one in documents}
    vectors = np.array([one.embedding for one in documents])
    for key, text in queries.items():
        scores = vectors @ teacher.encode_queries([text])[0]
        best = np.argsort(-scores)[:5]
        assert list(rows[key].document_ids) == [documents[place].id for place in best]
        assert [by_id[one].content for one in rows[key].document_ids] == list(rows[key].documents)
        # Vectors have length 1: cosine and dot product are the scores, squared distances are 2 - 2 times them.
        found = np.array(rows[key].retriever_scores)
        assert np.allclose(found, scores[best], atol=1e-3) or np.allclose(found, 2 * scores[best] - 2, atol=1e-3)


def test_vectors_that_the_store_hides_are_had_all_the_same(bert, teacher, documents, tmp_path):
    store = InMemoryDocumentStore(return_embedding=False, embedding_similarity_function="cosine")
    store.write_documents(documents)
    (tmp_path / "queries.jsonl").write_text(json.dumps({"_id": "q1", "text": "engine doctor"}))
    TrainingSetBuilder(
        retriever=InMemoryEmbeddingRetriever(store),
        text_embedder=KaleQueryEncoder(model=bert),
        top_k=3,
        output=str(tmp_path / "set"),
        progress_bar=False,
    ).run(queries=str(tmp_path / "queries.jsonl"))
    (row,) = TrainingSet.open(tmp_path / "set")
    vectors = np.array([one.embedding for one in documents])
    expected = np.sort(vectors @ teacher.encode_queries(["engine doctor"])[0])[::-1][:3]
    assert np.allclose(row.retriever_scores, expected, atol=1e-4)
