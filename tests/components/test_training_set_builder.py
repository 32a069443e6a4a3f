"""Candidates of every query in a training set, by any retriever."""

import numpy as np
import pytest
from haystack import Document, component
from haystack.components.retrievers.in_memory import InMemoryBM25Retriever, InMemoryEmbeddingRetriever

from haystack_distill import DistilledRetriever, KaleQueryEncoder, TrainingSetBuilder
from haystack_distill.data.training_set import TrainingSet


class TestTrainingSetBuilder:
    def test_scores_come_from_vectors_whatever_the_store_says(self, store, bert, beir, tmp_path, teacher):
        retriever = DistilledRetriever(
            retriever=InMemoryEmbeddingRetriever(store, scale_score=True), query_encoder=KaleQueryEncoder(model=bert)
        )
        builder = TrainingSetBuilder(retriever=retriever, top_k=4, output=str(tmp_path / "set"), progress_bar=False)
        assert builder.run(queries=str(beir)) == {"training_set": str(tmp_path / "set"), "rows": 30}
        training_set = TrainingSet.open(tmp_path / "set")
        assert training_set.manifest["similarity"] == "cosine"
        row = next(iter(training_set))
        vectors = teacher.encode_documents(row.documents)
        query = teacher.encode_queries([row.query])[0]
        expected = vectors @ query / np.linalg.norm(vectors, axis=1) / np.linalg.norm(query)
        assert np.allclose(row.retriever_scores, expected, atol=1e-5)
        assert row.retriever_scores == sorted(row.retriever_scores, reverse=True)
        assert row.labels is not None
        assert len(row.labels) == 4

    def test_a_text_retriever_has_ranks(self, store, beir, tmp_path):
        builder = TrainingSetBuilder(
            retriever=InMemoryBM25Retriever(store), top_k=3, split="dev", output=str(tmp_path / "set"), shard_rows=4
        )
        builder.run(queries=str(beir))
        training_set = TrainingSet.open(tmp_path / "set")
        assert training_set.manifest["similarity"] == "reciprocal_rank"
        assert len(training_set.shards) == 3
        assert all(row.retriever_scores == [1, 1 / 2, 1 / 3][: len(row.documents)] for row in training_set)

    def test_an_embedding_retriever_takes_its_embedder(self, store, bert, beir, tmp_path):
        inner = InMemoryEmbeddingRetriever(store)
        with pytest.raises(ValueError, match="searches with vectors: give its text_embedder"):
            TrainingSetBuilder(retriever=inner, output=str(tmp_path / "set")).run(queries=str(beir))
        builder = TrainingSetBuilder(
            retriever=inner, text_embedder=KaleQueryEncoder(model=bert), output=str(tmp_path / "set"), top_k=2
        )
        assert builder.run(queries=str(beir))["rows"] == 30

    def test_it_goes_on_where_it_was(self, store, beir, tmp_path, monkeypatch):
        from haystack_integrations.components.distill.parts.candidates import CandidateSearch

        find, calls = CandidateSearch.candidates, []

        def failing(self, questions):
            calls.append(len(questions))
            if len(calls) == 2:
                msg = "the store is down"
                raise ConnectionError(msg)
            return find(self, questions)

        monkeypatch.setattr(CandidateSearch, "candidates", failing)
        builder = TrainingSetBuilder(
            retriever=InMemoryBM25Retriever(store), top_k=3, output=str(tmp_path / "set"), shard_rows=10
        )
        with pytest.raises(ConnectionError):
            builder.run(queries=str(beir))
        assert not (tmp_path / "set").exists()
        assert builder.run(queries=str(beir))["rows"] == 30
        assert calls == [10, 10, 10, 10]
        assert builder.run(queries=str(beir))["rows"] == 30, "the same set is there already"
        assert len(calls) == 4
        with pytest.raises(FileExistsError, match="exists already"):
            TrainingSetBuilder(retriever=InMemoryBM25Retriever(store), top_k=5, output=str(tmp_path / "set")).run(
                queries=str(beir)
            )

    def test_bad_input(self, beir, tmp_path):
        from haystack.document_stores.in_memory import InMemoryDocumentStore

        empty = InMemoryBM25Retriever(InMemoryDocumentStore())
        with pytest.raises(ValueError, match="found nothing for any of the 30 queries"):
            TrainingSetBuilder(retriever=empty, output=str(tmp_path / "set")).run(queries=str(beir))
        with pytest.raises(ValueError, match="must be at least 1"):
            TrainingSetBuilder(retriever=empty, output="x", top_k=0)

    def test_documents_that_come_twice(self, beir, tmp_path):
        @component
        class Twice:
            @component.output_types(documents=list[Document])
            def run(self, query: str):
                return {"documents": [Document(id="d", content=query)] * 2}

        with pytest.raises(ValueError, match="The document 'd' comes twice for the query 'q0'"):
            TrainingSetBuilder(retriever=Twice(), output=str(tmp_path / "set")).run(queries=str(beir))
