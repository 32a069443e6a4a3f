"""Every store ranks as a brute-force search under its own similarity does, and that similarity is found out."""

import numpy as np
import pytest

from haystack_distill.data.similarity import scores
from haystack_integrations.components.distill.stores import ranking_of
from haystack_integrations.components.distill.stores.known import kind_of
from haystack_integrations.components.distill.stores.opening import verified_similarity
from tests.stores.conftest import ALL


@pytest.fixture(scope="session", params=ALL)
def ranked(request, opener, backend, uneven):
    if request.param not in backend.similarities:
        pytest.skip(f"{backend.name} can't rank by {request.param}")
    return request.param, opener(uneven, request.param)


def test_the_order_is_that_of_a_brute_force_search(ranked, backend, uneven):
    similarity, store = ranked
    vectors = np.array([one.embedding for one in uneven])
    for query in np.random.default_rng(1).normal(size=(5, vectors.shape[1])):
        found = backend.retriever_of(store).run(query_embedding=query.tolist(), top_k=10)["documents"]
        expected = np.argsort(-scores(similarity, query, vectors))[:10]
        assert [one.id for one in found] == [f"d{number}" for number in expected]


def test_the_similarity_is_found_out(ranked, backend, uneven):
    """Only Qdrant tells nothing under cosine: it stores normalised vectors, over which all similarities agree."""
    similarity, store = ranked
    vectors = np.array([one.embedding for one in uneven])
    ranking = ranking_of(store, kind_of(store).search(store), vectors[:8])
    assert ranking.similarity == similarity
    assert ranking.shares[similarity] == 1.0
    normalizes = backend.name.startswith("qdrant") and similarity == "cosine"
    assert ranking.normalized == normalizes
    if not normalizes:
        assert all(share < 0.99 for name, share in ranking.shares.items() if name != similarity)


def test_a_similarity_that_is_not_the_stores_is_refused(ranked, backend, uneven):
    similarity, store = ranked
    if backend.name.startswith("qdrant") and similarity == "cosine":
        pytest.skip("all similarities agree over the vectors that Qdrant normalised")
    vectors = np.array([one.embedding for one in uneven])
    wrong = next(name for name in ALL if name != similarity)
    with pytest.raises(ValueError, match=f"`similarity` is '{wrong}', but .* ranks by {similarity}"):
        verified_similarity(store, vectors, wrong)
    assert verified_similarity(store, vectors, similarity) == similarity


def test_what_a_store_does_is_believed_not_what_it_was_told(tmp_path, uneven):
    """A Chroma collection keeps the distance it was made with and ignores another one."""
    pytest.importorskip("haystack_integrations.document_stores.chroma")
    from haystack_integrations.document_stores.chroma import ChromaDocumentStore

    ChromaDocumentStore("c-01", persist_path=str(tmp_path), distance_function="cosine").write_documents(uneven)
    store = ChromaDocumentStore("c-01", persist_path=str(tmp_path), distance_function="ip")
    vectors = np.array([one.embedding for one in uneven])
    assert verified_similarity(store, vectors) == "cosine"
