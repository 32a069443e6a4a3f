"""A weighted sum is one, and the best weight is the best."""

import numpy as np
import pytest

from benchmarks.joining import best_weight, convex
from haystack_distill.evaluation.quality import measure
from haystack_distill.fusion.proof import WEIGHTS
from tests.fusion.test_baselines import candidates


def test_a_weighted_sum_is_of_scores_between_0_and_1():
    found = convex({"a": 4.0, "b": 3.0, "c": 2.0}, {"b": 0.9, "d": 0.1}, 0.25)
    assert found == pytest.approx({"a": 0.75, "b": 0.375 + 0.25, "c": 0.0, "d": 0.0})
    assert list(found)[:2] == ["a", "b"]
    assert convex({}, {"d": 0.5}, 0.5) == {"d": 0.5}


def test_no_weight_is_better_than_the_best_one():
    words = {f"q{number}": candidates(number) for number in range(20)}
    dense = {f"q{number}": candidates(number + 100) for number in range(20)}
    dense["q3"], words["q4"] = {}, {}
    random = np.random.default_rng(0)
    qrels = {key: {f"d{number}": int(random.integers(1, 3)) for number in random.permutation(50)[:5]} for key in words}

    def quality(weight):
        return measure({key: convex(words[key], dense[key], weight) for key in words}, qrels).mean()

    values = {weight: quality(weight) for weight in WEIGHTS}
    assert values[best_weight(words, dense, qrels)] == pytest.approx(max(values.values()))
    assert len(set(values.values())) > 5
