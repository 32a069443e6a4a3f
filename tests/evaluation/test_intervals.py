"""Intervals and tests where several questions ask for one document, against slow computations of their own."""

import itertools
import math
import random
import statistics

import numpy as np
import pytest

from haystack_distill.evaluation.comparison import Measured, System, metrics
from haystack_distill.evaluation.quality import Quality, compare, groups_of, measure, share

DOCUMENTS = 120


def asked_again(seed=0):
    """One to five questions about each document, which mostly succeed or fail together."""
    generator = random.Random(seed)
    qrels, values = {}, []
    for document in range(DOCUMENTS):
        ease = generator.random()
        for _ in range(generator.randint(1, 5)):
            qrels[f"q{len(qrels)}"] = {f"d{document}": 1}
            values.append(0.7 * ease + 0.3 * generator.random())
    return qrels, values


def by_document(qrels, values):
    """Document -> the values of the questions that ask for it."""
    groups = {}
    for judged, value in zip(qrels.values(), values, strict=True):
        groups.setdefault(next(iter(judged)), []).append(value)
    return list(groups.values())


def slow_interval(groups, statistic, resamples=4000):
    """A bootstrap over groups in plain Python."""
    generator = random.Random(1)
    drawn = sorted(
        statistic([one for group in generator.choices(groups, k=len(groups)) for one in group])
        for _ in range(resamples)
    )
    return drawn[round(0.025 * resamples)], drawn[round(0.975 * resamples) - 1]


def quality(values, qrels):
    return Quality({"ndcg@10": np.array(values)}, list(qrels), groups_of(qrels))


def test_questions_about_one_document_are_drawn_together():
    qrels, values = asked_again()
    summary = quality(values, qrels).summary()["ndcg@10"]
    assert summary["value"] == pytest.approx(statistics.fmean(values))
    low, high = slow_interval(by_document(qrels, values), statistics.fmean)
    assert summary["low"] == pytest.approx(low, abs=0.006)
    assert summary["high"] == pytest.approx(high, abs=0.006)


def test_the_interval_is_as_wide_as_the_standard_error_of_clusters_says():
    """By questions it is too narrow, as it was on every corpus that asks several questions about a passage."""
    qrels, values = asked_again()
    mean, count = statistics.fmean(values), len(values)
    errors = [sum(value - mean for value in group) for group in by_document(qrels, values)]
    by_group = math.sqrt(sum(error * error for error in errors)) / count
    by_question = math.sqrt(sum((value - mean) ** 2 for value in values)) / count
    grouped = quality(values, qrels).summary()["ndcg@10"]
    single = Quality({"ndcg@10": np.array(values)}, list(qrels)).summary()["ndcg@10"]
    assert by_group > 1.2 * by_question
    assert grouped["high"] - grouped["low"] == pytest.approx(2 * 1.96 * by_group, rel=0.06)
    assert single["high"] - single["low"] == pytest.approx(2 * 1.96 * by_question, rel=0.06)


def test_signs_are_flipped_by_groups():
    """Every way of flipping the signs of eight documents, one after the other."""
    groups = [[0.3, 0.2], [0.1], [-0.1, 0.3, 0.2], [0.2], [0.4, 0.1], [-0.2], [0.3, -0.1], [0.1, 0.1]]
    qrels = {f"q{d}-{n}": {f"d{d}": 1} for d, group in enumerate(groups) for n in range(len(group))}
    sums = [sum(group) for group in groups]
    flips = [sum(map(math.prod, zip(signs, sums, strict=True))) for signs in itertools.product((1, -1), repeat=8)]
    exact = sum(abs(one) >= abs(sum(sums)) - 1e-12 for one in flips) / len(flips)
    differences = [value for group in groups for value in group]
    found = compare(quality(differences, qrels), quality([0.0] * len(differences), qrels))
    assert found["difference"] == pytest.approx(statistics.fmean(differences))
    assert found["p"] == pytest.approx(exact, abs=0.01)


def test_a_share_has_a_paired_interval():
    """Both means are of the same documents, so the share is surer than two intervals side by side would say."""
    qrels, values = asked_again()
    noise = random.Random(2)
    better = [1.04 * value + noise.gauss(0, 0.05) for value in values]
    found = share(quality(better, qrels), quality(values, qrels))
    assert found["value"] == pytest.approx(statistics.fmean(better) / statistics.fmean(values))

    def ratio(pairs):
        return sum(pair[0] for pair in pairs) / sum(pair[1] for pair in pairs)

    low, high = slow_interval(by_document(qrels, list(zip(better, values, strict=True))), ratio)
    assert found["low"] == pytest.approx(low, abs=0.002)
    assert found["high"] == pytest.approx(high, abs=0.002)
    assert 1 < found["low"] < found["value"] < found["high"]
    alone = quality(better, qrels).summary()["ndcg@10"]
    assert found["high"] - found["low"] < (alone["high"] - alone["low"]) / statistics.fmean(values) / 3


def test_the_same_seed_gives_the_same_figures():
    qrels, values = asked_again()
    one, other = quality(values, qrels), quality(values[::-1], qrels)
    assert compare(one, other, seed=3) == compare(one, other, seed=3) != compare(one, other, seed=4)
    assert share(one, other, seed=3) == share(one, other, seed=3)


def test_a_query_belongs_to_the_document_that_most_queries_share():
    qrels = {
        "a": {"x": 1, "y": 1},
        "b": {"y": 2},
        "c": {"z": 1, "x": 0},
        "d": {"y": 1, "z": 1},
        "e": {"z": -1},
    }
    assert groups_of(qrels).tolist() == [0, 0, 1, 0, 2]


def test_one_relevant_document_for_all():
    """The figures are of other questions about this document, so each question counts for itself."""
    qrels = {f"q{number}": {"the one": 1} for number in range(40)}
    run = {f"q{number}": {"the one": 1.0, "other": 2.0 * (number % 2)} for number in range(40)}
    found = measure(run, qrels)
    second = 1 / math.log2(3)
    assert found.mean() == pytest.approx((1 + second) / 2)
    summary = found.summary()["ndcg@10"]
    error = (1 - second) / 2 / math.sqrt(40)
    assert summary["high"] - summary["low"] == pytest.approx(2 * 1.96 * error, rel=0.1)


def test_graded_judgments_count_by_their_grade_and_those_of_zero_or_below_do_not():
    qrels = {"q": {"best": 3, "good": 1, "unfit": 0, "wrong": -2}}
    found = measure({"q": {"wrong": 4.0, "good": 3.0, "unfit": 2.0, "best": 1.0}}, qrels)
    gain = 1 / math.log2(3) + 3 / math.log2(5)
    assert found.mean("ndcg@10") == pytest.approx(gain / (3 + 1 / math.log2(3)))
    assert found.mean("recall@10") == 1
    assert found.mean("mrr@10") == 0.5


def test_a_system_that_finds_nothing():
    qrels = {f"q{number}": {f"d{number}": 1} for number in range(9)}
    right = measure({query_id: dict.fromkeys(judged, 1.0) for query_id, judged in qrels.items()}, qrels)
    nothing = measure({}, qrels)
    assert nothing.summary()["ndcg@10"] == {"value": 0, "low": 0, "high": 0}
    assert share(nothing, right) == {"value": 0, "low": 0, "high": 0}
    assert share(right, nothing) == {"value": None, "low": None, "high": None}
    lost = compare(nothing, right)
    assert (lost["difference"], lost["low"], lost["high"]) == (-1, -1, -1)
    assert lost["p"] == pytest.approx(2 / 2**9, abs=0.003)
    systems = {
        name: Measured(System(name, np.zeros_like, 0), found, 1.0, {})
        for name, found in (("teacher", nothing), ("student", right))
    }
    assert metrics(systems)["share_of_teacher"] is None


@pytest.mark.filterwarnings("error")
def test_too_few_queries_for_the_interval_of_a_share():
    """Now and then a resample holds no query that the teacher answers, and its share would be of nothing."""
    one, other = (Quality({"ndcg@10": np.array(values)}, ["a", "b", "c"]) for values in ([1.0, 0, 0], [0.5, 0, 0]))
    found = share(one, other)
    assert found["value"] == 2
    assert found["low"] is found["high"] is None
    more = Quality({"ndcg@10": np.array([1.0, 1, 0])}, ["a", "b", "c"])
    found = share(more, other)
    assert found["low"] is found["high"] is None  # an interval without an end is none: what is printed needs both
