import math
import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from haystack_distill.evaluation.comparison import System, measure_all, metrics, wins_and_losses
from haystack_distill.evaluation.quality import (
    Quality,
    compare,
    latencies,
    latency_ms,
    measure,
    own_rows,
    ranking,
    search,
)
from haystack_distill.evaluation.report import write_report


def quality(values):
    return Quality({"ndcg@10": np.array(values, dtype=float)}, [str(number) for number in range(len(values))])


@settings(max_examples=60, deadline=None)
@given(
    scores=st.dictionaries(st.sampled_from("abcdefghijklmno"), st.integers(0, 50), min_size=1),
    relevant=st.sets(st.sampled_from("abcdefghijklmno"), min_size=1),
)
def test_measures_are_their_definitions(scores, relevant):
    """nDCG@10, recall@10 and MRR@10 by hand, ties broken by id as trec_eval does."""
    order = ranking({document: float(score) for document, score in scores.items()})[:10]
    gain = sum(1 / math.log2(place + 2) for place, document in enumerate(order) if document in relevant)
    ideal = sum(1 / math.log2(place + 2) for place in range(min(10, len(relevant))))
    first = next((1 / (place + 1) for place, document in enumerate(order) if document in relevant), 0.0)
    found = measure({"q": {k: float(v) for k, v in scores.items()}}, {"q": dict.fromkeys(relevant, 1)})
    assert found.mean("ndcg@10") == pytest.approx(gain / ideal)
    assert found.mean("recall@10") == pytest.approx(len(set(order) & relevant) / len(relevant))
    assert found.mean("mrr@10") == pytest.approx(first)


def test_a_query_that_found_nothing_counts_as_zero():
    found = measure({"a": {"x": 1.0}}, {"a": {"x": 1}, "b": {"x": 1}})
    assert found.mean() == pytest.approx(0.5)


def test_nothing_judged():
    with pytest.raises(ValueError, match="no judgments"):
        measure({}, {})


def test_search_is_a_brute_force_ranking(index):
    queries = np.random.default_rng(0).normal(size=(3, index.dim)).astype(np.float32)
    run = search(index, ["a", "b", "c"], queries, depth=5)
    for query_id, query in zip("abc", queries, strict=True):
        scores = {document: float(vector @ query) for document, vector in zip(index.ids, index.vectors, strict=True)}
        assert ranking(run[query_id]) == ranking(scores)[:5]


def test_a_query_that_is_a_document_does_not_find_itself(index):
    """By id and text: a title may stand before the text, and equal ids alone mean nothing."""
    own, other = index.ids[3], index.ids[5]
    judged = index.ids[9]
    queries = {own: index.texts[3].split(" ", 1)[1], other: "another text", "q": index.texts[7], judged: index.texts[9]}
    vectors = index.vectors[[3, 5, 7, 9]]
    qrels = {query_id: {judged: 1} for query_id in queries}
    for depth in (4, len(index)):
        run = search(index, list(queries), vectors, depth, own_rows(index, queries, qrels))
        everything = search(index, list(queries), vectors, len(index))
        assert own in everything[own]
        assert own not in run[own]
        assert ranking(run[own]) == [one for one in ranking(everything[own]) if one != own][:depth]
        assert other in run[other]
        assert index.ids[7] in run["q"]
        assert judged in run[judged]


def test_equal_systems_do_not_differ_and_better_ones_do():
    random = np.random.default_rng(0)
    values = random.random(200)
    assert compare(quality(values), quality(values)) == {"difference": 0, "low": 0, "high": 0, "p": 1.0}
    better = compare(quality(values + 0.1 + 0.05 * random.random(200)), quality(values))
    assert better["low"] > 0.1
    assert better["p"] < 0.001
    noise = compare(quality(values + random.normal(0, 0.1, 200)), quality(values))
    assert noise["p"] > 0.01


def test_one_query_proves_nothing():
    assert compare(quality([0.9]), quality([0.1])) == pytest.approx(
        {"difference": 0.8, "low": 0.8, "high": 0.8, "p": 1}
    )


def test_the_interval_of_a_mean_holds_it():
    summary = quality(np.random.default_rng(1).random(100)).summary()["ndcg@10"]
    assert summary["low"] < summary["value"] < summary["high"]
    assert summary["high"] - summary["low"] == pytest.approx(2 * 1.96 * math.sqrt(1 / 12 / 100), rel=0.25)


def test_latency_is_taken_in_turn():
    calls = []

    def encoder(name, seconds):
        def encode(query):
            calls.append((name, query))
            time.sleep(seconds)

        return encode

    encoders = {"a": encoder("a", 0.004), "b": encoder("b", 0.0)}
    milliseconds = latencies(encoders, ["q1", "q2"], rounds=2, warm_up=1)
    turn = {name: [(name, query) for query in ("q1", "q1", "q2")] for name in "ab"}
    assert calls == turn["a"] + turn["b"] + turn["b"] + turn["a"]
    assert len(milliseconds["a"]) == len(milliseconds["b"]) == 4
    assert latency_ms(encoders, ["q1", "q2"])["a"] > latency_ms(encoders, ["q1", "q2"])["b"]


@pytest.fixture
def measured(index, teacher):
    """A teacher, and a student that is right about some queries only."""
    queries = {f"q{number}": index.texts[number].split(". ")[0] for number in range(20)}
    qrels = {f"q{number}": {index.ids[number]: 1} for number in range(20)}

    def half_blind(texts):
        vectors = teacher.encode_queries(texts)
        vectors[[len(text) % 2 == 0 for text in texts]] *= -1
        return vectors

    systems = [System("teacher", teacher.encode_queries, 6), System("student", half_blind, 2, 12.5)]
    return measure_all(systems, index, queries, qrels), queries, qrels


def test_figures_of_a_comparison(measured):
    figures = metrics(measured[0])
    assert figures["share_of_teacher"] == pytest.approx(figures["student"]["ndcg@10"] / figures["teacher"]["ndcg@10"])
    assert figures["speedup"] == pytest.approx(figures["teacher"]["encode_ms"] / figures["student"]["encode_ms"])
    assert figures["significance"]["difference"] < 0
    assert figures["queries"] == 20


def test_losses_are_the_queries_that_lost(measured, index):
    systems, queries, qrels = measured
    examples = wins_and_losses(systems["student"], systems["teacher"], queries, qrels, index)
    assert examples["losses"]
    assert all(row["student"] < row["reference"] for row in examples["losses"])
    assert all(row["student"] > row["reference"] for row in examples["wins"])


def test_the_report_stands_alone_and_escapes_texts(measured):
    systems, _, _ = measured
    examples = {
        "wins": [],
        "losses": [
            {"query": "<script>alert(1)</script>", "reference": 1.0, "student": 0.0, "relevant": "a"}
            | {"reference_first": "b", "student_first": "c"}
        ],
    }
    page = write_report(systems, metrics(systems), examples, {"Teacher": "t", "Judged by": "judged"})
    assert "<script>" not in page
    assert "&lt;script&gt;" in page
    assert "<svg" in page
    assert not any(mark in page for mark in ("src=", "@import", 'rel="stylesheet"'))
