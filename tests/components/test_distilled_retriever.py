"""A text retriever before an index: its order, its YAML, and what it refuses."""

import asyncio

import numpy as np
import pytest
from haystack import Document, Pipeline
from haystack.components.retrievers import MultiRetriever
from haystack.components.retrievers.in_memory import InMemoryEmbeddingRetriever
from haystack_integrations.components.retrievers.qdrant import QdrantEmbeddingRetriever
from haystack_integrations.document_stores.qdrant import QdrantDocumentStore

from haystack_distill import DistilledRetriever, KaleQueryEncoder

QUERY = "river bridge stone winter"


class TestDistilledRetriever:
    def test_documents_are_those_of_the_retriever_in_its_order(self, bert, store):
        inner = InMemoryEmbeddingRetriever(store, top_k=7)
        retriever = DistilledRetriever(retriever=inner, query_encoder=KaleQueryEncoder(model=bert))
        embedding = KaleQueryEncoder(model=bert).run(text=QUERY)["embedding"]
        expected = [document.id for document in inner.run(query_embedding=embedding)["documents"]]
        assert [document.id for document in retriever.run(query=QUERY)["documents"]] == expected
        found = asyncio.run(retriever.run_async(query=QUERY))["documents"]
        assert [document.id for document in found] == expected
        assert len(retriever.run(query=QUERY, top_k=3)["documents"]) == 3
        filters = {"field": "id", "operator": "==", "value": expected[2]}
        assert [one.id for one in retriever.run(query=QUERY, filters=filters)["documents"]] == [expected[2]]

    def test_a_store_that_scores_by_distance_keeps_its_order(self, bert, teacher, passages):
        """Qdrant's l2 scores are distances: sorting by score would reverse them."""
        store = QdrantDocumentStore(":memory:", embedding_dim=32, similarity="l2")
        vectors = teacher.encode_documents(list(passages.values()))
        store.write_documents(
            [
                Document(content=text, embedding=vector.tolist())
                for text, vector in zip(passages.values(), vectors, strict=True)
            ]
        )
        retriever = DistilledRetriever(
            retriever=QdrantEmbeddingRetriever(document_store=store), query_encoder=KaleQueryEncoder(model=bert)
        )
        found = [document.content for document in retriever.run(query=QUERY, top_k=5)["documents"]]
        distances = np.linalg.norm(vectors - teacher.encode_queries([QUERY]), axis=1)
        assert found == [list(passages.values())[number] for number in np.argsort(distances)[:5]]

    def test_it_is_a_text_retriever_for_haystacks_own_components(self, bert, store):
        retriever = DistilledRetriever(
            retriever=InMemoryEmbeddingRetriever(store), query_encoder=KaleQueryEncoder(model=bert)
        )
        found = MultiRetriever(retrievers={"distilled": retriever}).run(query=QUERY)["documents"]
        assert len(found) == 10

    def test_a_round_trip_through_yaml(self, bert, store):
        pipeline = Pipeline()
        pipeline.add_component(
            "retriever",
            DistilledRetriever(
                retriever=InMemoryEmbeddingRetriever(store), query_encoder=KaleQueryEncoder(model=bert), top_k=4
            ),
        )
        again = Pipeline.loads(pipeline.dumps())
        assert again.to_dict() == pipeline.to_dict()

    def test_an_empty_query(self, bert, store):
        retriever = DistilledRetriever(
            retriever=InMemoryEmbeddingRetriever(store), query_encoder=KaleQueryEncoder(model=bert)
        )
        with pytest.raises(ValueError, match="query is empty"):
            retriever.run(query="")

    def test_top_k_of_nothing(self, store):
        with pytest.raises(ValueError, match="top_k"):
            DistilledRetriever(retriever=InMemoryEmbeddingRetriever(store), query_encoder=None, top_k=0)

    @pytest.mark.parametrize("top_k", [0, -1])
    def test_top_k_of_nothing_is_asked_for(self, bert, store, top_k):
        """Qdrant would take 0 for its default."""
        retriever = DistilledRetriever(
            retriever=InMemoryEmbeddingRetriever(store), query_encoder=KaleQueryEncoder(model=bert)
        )
        for run in (retriever.run, lambda **given: asyncio.run(retriever.run_async(**given))):
            with pytest.raises(ValueError, match=f"top_k must be at least 1, not {top_k}"):
                run(query=QUERY, top_k=top_k)
