"""Lists are joined as Haystack joins them."""

import numpy as np
import pytest
from haystack import Document
from haystack.components.joiners import DocumentJoiner

from haystack_distill.evaluation.quality import ranking
from haystack_distill.fusion.baselines import BASELINES

MODES = {"rrf": "reciprocal_rank_fusion", "dbsf": "distribution_based_rank_fusion"}


def candidates(seed, count=30, of=50):
    random = np.random.default_rng(seed)
    scores = np.sort(random.integers(1, 20, count))[::-1] / 4  # with ties
    return dict(zip((f"d{number}" for number in random.permutation(of)[:count]), scores.tolist(), strict=True))


@pytest.mark.parametrize("name", MODES)
@pytest.mark.parametrize(
    "lists",
    [
        *([candidates(seed), candidates(seed + 100)] for seed in range(10)),
        [candidates(1), candidates(2), candidates(3)],
        [{}, candidates(1)],
        [{"a": 2.0}, {"b": 0.5, "a": 0.25}],
        [{"a": 2.0, "b": 2.0}, {"b": 0.5, "c": 0.5}],
        [{}, {}],
    ],
)
def test_a_ranking_is_joined_as_haystack_joins_it(name, lists):
    documents = [[Document(id=key, score=score) for key, score in one.items()] for one in lists]
    expected = [document.id for document in DocumentJoiner(MODES[name]).run(documents)["documents"]]
    found = BASELINES[name](lists)
    assert list(found) == expected == ranking(found)
