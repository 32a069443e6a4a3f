"""What a store returns of an encoder's own exact top ten, with searches that err in known ways."""

import numpy as np
import pytest

from haystack_distill.data.index import IndexView
from haystack_distill.evaluation.comparison import Measured, System
from haystack_distill.evaluation.quality import Quality
from haystack_distill.evaluation.recovery import StoreSearch

DIM = 8


def index_of(documents: int, similarity: str = "dot_product") -> IndexView:
    vectors = np.random.default_rng(0).normal(size=(documents, DIM)).astype(np.float32)
    return IndexView([f"d{row}" for row in range(documents)], [""] * documents, vectors, similarity, fingerprint="")


def encode(texts: list[str]) -> np.ndarray:
    return np.stack([np.random.default_rng(int(text)).normal(size=DIM) for text in texts])


ENCODER = System("teacher", encode, 1)
TEXTS = [str(number) for number in range(20)]


def exact(index: IndexView, vector: list[float], skipped: int = 0) -> list[str]:
    scores = index.vectors @ np.array(vector)
    if index.similarity == "cosine":
        scores /= np.linalg.norm(index.vectors, axis=1)
    return [index.ids[row] for row in np.argsort(-scores)[skipped:]]


@pytest.mark.parametrize("similarity", ["dot_product", "cosine"])
@pytest.mark.parametrize("missed", [0, 3, 10])
def test_it_is_the_share_of_the_ten_that_came(missed, similarity):
    index = index_of(50, similarity)
    store = StoreSearch(lambda vector, top_k: exact(index, vector, missed)[:top_k], "it")
    assert store.recovery(ENCODER, index, TEXTS) == pytest.approx(1 - missed / 10)


@pytest.mark.parametrize("documents", [1, 7])
def test_of_fewer_than_ten_documents_all_are_expected(documents):
    index = index_of(documents)
    asked = []

    def find(vector, top_k):
        asked.append(top_k)
        return exact(index, vector)[: top_k - 1]

    assert StoreSearch(find, "it").recovery(ENCODER, index, TEXTS) == pytest.approx(1 - 1 / documents)
    assert set(asked) == {documents}


def test_of_equal_documents_either_counts():
    """Ten of twenty copies are as good as any other ten."""
    index = IndexView([f"d{row}" for row in range(20)], [""] * 20, np.ones((20, DIM)), "cosine", fingerprint="")
    positive = System("teacher", lambda texts: np.abs(encode(texts)), 1)
    store = StoreSearch(lambda _, top_k: index.ids[-top_k:], "it")
    assert store.recovery(positive, index, TEXTS) == 1


def test_documents_that_are_not_in_the_index_count_for_nothing():
    index = index_of(50)
    store = StoreSearch(lambda vector, top_k: ["elsewhere", *exact(index, vector)][:top_k], "it")
    assert store.recovery(ENCODER, index, TEXTS) == pytest.approx(0.9)


def measured(name: str, recovery: float | None = None) -> Measured:
    return Measured(System(name, encode, 1), Quality({}, []), 1.0, {}, recovery)


def test_at_most_200_queries_are_asked_the_same_for_all_and_again():
    index, asked = index_of(50), []

    def find(vector, top_k):
        asked.append(tuple(vector))
        return exact(index, vector)[:top_k]

    systems = {name: measured(name) for name in ("teacher", "a")}
    texts = [str(number) for number in range(300)]
    for seed in (1, 1, 2):
        found = StoreSearch(find, "it").recovered(systems, index, texts, seed)
        assert {name: each.recovery for name, each in found.items()} == {"teacher": 1, "a": 1}
    rounds = [asked[start : start + 200] for start in range(0, len(asked), 200)]
    assert len(rounds) == 6
    assert rounds[0] == rounds[1] == rounds[2] == rounds[3] != rounds[4]
    assert len(set(rounds[0])) == 200


def test_only_students_that_recover_noticeably_less_are_named():
    systems = {"teacher": 0.98, "a": 0.975, "b": 0.9612, "c": 0.5, "d": 1.0}
    store = StoreSearch(lambda *_: [], "`ef` of it")
    assert store.advice({name: measured(name, share) for name, share in systems.items()}) == (
        "The store returns 98.0 % of the teacher's own exact top ten and 96.1 % of that of b, 50.0 % of that of c, for "
        "which the search must try harder: raise `ef` of it."
    )
    assert store.advice({"teacher": measured("teacher", 0.98), "a": measured("a", 0.975)}) is None
