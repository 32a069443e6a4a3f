import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from haystack_distill.data.similarity import SIMILARITIES, cosines, has_length_one, recognise, scores, shares_in_order

seeds = st.integers(0, 10_000)


def searches(similarity, seed, *, noise=0.0, documents=60, missed=0.0):
    """What a store that ranks by a similarity returns for five queries, perhaps missing some neighbours."""
    random = np.random.default_rng(seed)
    vectors = random.normal(size=(documents, 8)) * random.uniform(0.3, 3.0, size=(documents, 1))
    for query in random.normal(size=(5, 8)):
        values = scores(similarity, query, vectors) + noise * random.normal(size=documents)
        order = np.argsort(-values)
        yield query, vectors[order[random.random(documents) >= missed][:20]]


@settings(max_examples=30, deadline=None)
@given(seeds, st.sampled_from(SIMILARITIES), st.floats(0, 0.5))
def test_a_similarity_is_recognised_even_where_neighbours_are_missed(seed, similarity, missed):
    shares = shares_in_order(searches(similarity, seed, missed=missed))
    assert shares[similarity] == 1.0
    assert recognise(shares) == similarity


@settings(max_examples=30, deadline=None)
@given(seeds, st.sampled_from(SIMILARITIES))
def test_over_vectors_of_length_one_all_similarities_agree(seed, similarity):
    random = np.random.default_rng(seed)
    vectors = random.normal(size=(40, 8))
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    query = random.normal(size=8)
    shares = shares_in_order([(query, vectors[np.argsort(-scores(similarity, query, vectors))])])
    assert min(shares.values()) == 1.0
    assert recognise(shares, declared="dot_product") == "dot_product"
    assert has_length_one(vectors)


@settings(max_examples=20, deadline=None)
@given(seeds)
def test_an_order_by_something_else_is_not_recognised(seed):
    random = np.random.default_rng(seed)
    shares = shares_in_order((random.normal(size=8), random.normal(size=(50, 8))) for _ in range(5))
    assume(max(shares.values()) < 0.75)  # chance
    assert recognise(shares, declared="cosine") is None


def test_what_is_declared_is_believed_only_where_it_fits():
    shares = {"cosine": 0.7, "dot_product": 1.0, "euclidean": 0.995}
    assert recognise(shares, "cosine") == "dot_product"
    assert recognise(shares, "euclidean") == "euclidean"
    assert recognise(shares) == "dot_product"


def test_nothing_to_compare_is_no_contradiction():
    assert shares_in_order([]) == dict.fromkeys(SIMILARITIES, 1.0)


@pytest.mark.parametrize(("similarity", "expected"), [("cosine", 0.6), ("dot_product", 6.0), ("euclidean", -17.0)])
def test_scores_by_hand(similarity, expected):
    found = scores(similarity, np.array([2.0, 0.0]), np.array([[3.0, 4.0]]))
    assert found[0] == pytest.approx(expected)


def test_a_vector_of_zeros_is_at_right_angles_to_all():
    assert scores("cosine", np.array([2.0, 0.0]), np.zeros((1, 2)))[0] == 0


def test_cosines_by_hand():
    """Row by row, whatever the lengths; a row of zeros has none."""
    found = cosines(np.array([[3.0, 4.0], [1.0, 0.0], [0.0, 0.0]]), np.array([[0.5, 0.0], [-2.0, 0.0], [1.0, 0.0]]))
    np.testing.assert_allclose(found, [0.6, -1.0, np.nan])
