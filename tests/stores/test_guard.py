"""The similarity guard: a student before a store that ranks otherwise is an error that says what to do."""

import asyncio
import json
import logging
import shutil
from dataclasses import replace

import pytest
from haystack.components.retrievers.in_memory import InMemoryEmbeddingRetriever
from haystack.document_stores.errors import DocumentStoreError
from haystack.document_stores.in_memory import InMemoryDocumentStore
from haystack.document_stores.types import DuplicatePolicy

from haystack_distill import DistilledRetriever, KaleQueryEncoder
from haystack_distill.data.similarity import rank_alike
from tests.stores.conftest import BACKENDS, free_port
from tests.stores.test_bad_input import chroma_at, qdrant_at

QUERY = "river bridge stone winter"


@pytest.fixture
def student(bert, tmp_path):
    """A student's folder that says it was made for a given index."""

    def made_for(similarity: str, *, normalized: bool, dim: int = 32) -> KaleQueryEncoder:
        folder = tmp_path / f"{similarity}-{normalized}-{dim}"
        shutil.copytree(bert, folder)
        index = {"similarity": similarity, "normalized": normalized, "dim": dim}
        (folder / "haystack_distill.json").write_text(json.dumps({"index": index}))
        return KaleQueryEncoder(model=str(folder))

    return made_for


def retriever(backend, store, encoder):
    return DistilledRetriever(retriever=backend.retriever_of(store), query_encoder=encoder)


@pytest.mark.parametrize("similarity", ["cosine", "dot_product", "euclidean"])
def test_vectors_of_length_one_suit_every_similarity(similarity, backend, filled, student):
    retriever(backend, filled, student(similarity, normalized=True)).warm_up()


def test_a_student_of_dot_products_does_not_suit_vectors_of_length_one(backend, filled, student):
    served = retriever(backend, filled, student("dot_product", normalized=False))
    with pytest.raises(ValueError, match="dot_product over vectors not of length 1, .* of length 1: .*KaleAligner"):
        served.run(query=QUERY)
    with pytest.raises(ValueError, match="dot_product over vectors not of length 1"):
        asyncio.run(served.run_async(query=QUERY))


def test_a_store_of_uneven_vectors(backend, opener, uneven, student):
    """The store ranks by its default; the student was made for something else."""
    similarity = backend.similarities[0]
    store = opener(uneven, similarity)
    wrong = "cosine" if similarity == "dot_product" else "dot_product"
    with pytest.raises(ValueError, match=f"ranks by {wrong} .*ranks by {similarity}"):
        retriever(backend, store, student(wrong, normalized=False)).warm_up()
    retriever(backend, store, student(similarity, normalized=False)).warm_up()


def test_another_dimension(backend, filled, student):
    with pytest.raises(ValueError, match="with vectors of 16 dimensions: it holds vectors of 32 .*it was made for"):
        retriever(backend, filled, student("cosine", normalized=True, dim=16)).warm_up()


def test_an_empty_store_is_checked_later(backend, opener, documents, student, caplog):
    store = opener()
    served = retriever(backend, store, student("dot_product", normalized=False))
    with caplog.at_level(logging.WARNING):
        for _ in range(3):
            assert served.run(query=QUERY)["documents"] == []
    assert caplog.text.count("was not checked") == 1
    store.write_documents(documents)
    with pytest.raises(ValueError, match="not of length 1"):
        served.warm_up()


def test_documents_without_vectors_are_checked_when_they_get_some(backend, opener, documents, student):
    if backend.kind.title in ("Chroma", "Milvus"):
        pytest.skip(f"{backend.kind.title} gives documents without a vector one of its own")
    store = opener([replace(document, embedding=None) for document in documents[:2]])
    served = retriever(backend, store, student("dot_product", normalized=False))
    served.warm_up()
    store.write_documents(documents, policy=DuplicatePolicy.OVERWRITE)
    with pytest.raises(ValueError, match="not of length 1"):
        served.warm_up()


@pytest.mark.parametrize(("name", "at"), [("qdrant", qdrant_at), ("chroma", chroma_at)])
def test_a_store_that_is_down_is_not_taken_for_a_wrong_encoder(name, at, student):
    backend = next(backend for backend in BACKENDS if backend.name == name)
    served = retriever(backend, at(free_port()), student("cosine", normalized=True))
    with pytest.raises(DocumentStoreError, match=f"{backend.kind.name} could not be searched.* is up"):
        served.warm_up()


def test_a_search_that_times_out_is_not_taken_for_a_wrong_encoder(documents, student):
    """The store answers, but not in time; as soon as it does, it is checked as ever."""

    class Slow(InMemoryDocumentStore):
        slow = True

        def embedding_retrieval(self, *arguments, **options):
            if self.slow:
                msg = "no answer within 5 s"
                raise TimeoutError(msg)
            return super().embedding_retrieval(*arguments, **options)

    store = Slow()
    store.write_documents(documents)
    encoder = student("dot_product", normalized=False)
    served = DistilledRetriever(retriever=InMemoryEmbeddingRetriever(store), query_encoder=encoder)
    with pytest.raises(DocumentStoreError, match="Slow could not be searched .*no answer within 5 s"):
        served.warm_up()
    store.slow = False
    with pytest.raises(ValueError, match="not of length 1"):
        served.warm_up()


def test_it_is_checked_once(backend, filled, student):
    served = retriever(backend, filled, student("cosine", normalized=True))
    served.warm_up()
    served.query_encoder.model = "nowhere"
    served.warm_up()


def test_what_is_no_student_is_not_checked(backend, filled, bert):
    retriever(backend, filled, KaleQueryEncoder(model=bert)).warm_up()


@pytest.mark.parametrize(
    ("first", "second", "alike"),
    [
        (("cosine", False), ("cosine", True), True),
        (("dot_product", True), ("euclidean", True), True),
        (("dot_product", False), ("dot_product", True), False),
        (("dot_product", False), ("cosine", False), False),
        (("euclidean", False), ("euclidean", False), True),
    ],
)
def test_which_indexes_rank_alike(first, second, alike):
    assert rank_alike(first, second) is rank_alike(second, first) is alike
