"""Weights are those that explain the teacher, for any number of retrievers; what can't be fitted is refused."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.linear_model import LogisticRegression

from haystack_distill.data.training_set import Row, TrainingSet, write_training_set
from haystack_distill.fusion.fitting import FOLDS, PENALTY, describe, fit

NAMES = ("words", "dense")


def row(number, lists, scores, candidates):
    return Row(
        query_id=f"q{number}",
        query=f"question {number}",
        answers=[],
        document_ids=candidates,
        documents=[f"text {key}" for key in candidates],
        retriever_scores=[1.0] * len(candidates),
        teacher_scores=scores,
        lists=lists,
    )


def changed(rows, lists=lambda _, ranked: ranked, scores=lambda given: given):
    """The rows with other lists or scores."""
    return [
        replace(
            one,
            lists={name: lists(name, ranked) for name, ranked in one.lists.items()},
            teacher_scores=scores(one.teacher_scores),
        )
        for one in rows
    ]


def made_rows(count, weights, seed=0, noise=0.05, documents=12):
    """Lists of as many retrievers as there are weights; the best document is best by the weighted sum."""
    random = np.random.default_rng(seed)
    rows = []
    for number in range(count):
        values = random.uniform(size=(documents, len(weights)))
        values = (values - values.min(0)) / (values.max(0) - values.min(0))
        truth = values @ np.asarray(weights) + noise * random.normal(size=documents)
        lists = {}
        for place, name in enumerate(("words", "dense", "sparse")[: len(weights)]):
            order = np.argsort(-values[:, place], kind="stable")
            unit = (20.0, 1.0, 300.0)[place]
            lists[name] = {f"d{key}": float(unit * values[key, place]) for key in order}
        keys = [f"d{key}" for key in range(documents)]
        rows.append(row(number, lists, [float(key == truth.argmax()) for key in range(documents)], keys))
    return rows


@given(st.floats(0.1, 0.9), st.integers(0, 100))
@settings(max_examples=10, deadline=None)
def test_the_weight_behind_the_labels_is_found(weight, seed):
    fitted = fit(made_rows(150, (1 - weight, weight), seed), NAMES, 100, judged=True)
    found = {retriever.name: retriever.weight for retriever in fitted.fusion.retrievers}
    assert found["dense"] == pytest.approx(weight, abs=0.08)
    assert sum(found.values()) == pytest.approx(1)


def test_three_retrievers_are_fitted_as_two_are():
    fitted = fit(made_rows(200, (0.5, 0.3, 0.2)), (*NAMES, "sparse"), 100, judged=True)
    assert [retriever.weight for retriever in fitted.fusion.retrievers] == pytest.approx([0.5, 0.3, 0.2], abs=0.07)


def test_weights_are_those_of_a_logistic_regression_where_two_documents_are_compared():
    random = np.random.default_rng(1)
    rows, differences, firsts = [], [], []
    for number in range(60):
        inner = random.uniform(0.05, 0.95, size=2)
        lists = {
            "words": {"top": 1.0, "a": float(inner[0]), "b": 0.0},
            "dense": {"top": 1.0, "b": float(inner[1]), "a": 0.0},
        }
        better = inner[0] + random.normal() > inner[1]
        rows.append(row(number, lists, [float(better), float(not better)], ["a", "b"]))
        differences.append([inner[0], -inner[1]])
        firsts.append(better)
    fitted = fit(rows, NAMES, 100, judged=True)
    assert fitted.fusion.scale == "min-max"
    alike = LogisticRegression(fit_intercept=False, C=1 / (2 * PENALTY * len(rows)), tol=1e-9, max_iter=10_000)
    weights = alike.fit(np.array(differences), np.array(firsts)).coef_[0]
    expected = (weights / weights.sum()).tolist()
    assert [retriever.weight for retriever in fitted.fusion.retrievers] == pytest.approx(expected, abs=1e-3)


def test_a_reader_counts_by_its_order_and_not_by_its_unit():
    rows = made_rows(40, (0.3, 0.7), noise=0.0)
    random = np.random.default_rng(5)
    rows = changed(rows, scores=lambda given: [float(score + 0.2 * random.normal()) for score in given])
    weights = []
    for unit in (1.0, 100.0):
        read = changed(rows, scores=lambda given, unit=unit: [unit * score - 7 for score in given])
        weights.append([retriever.weight for retriever in fit(read, NAMES, 100, judged=False).fusion.retrievers])
    assert weights[0] == pytest.approx(weights[1], abs=1e-3)


def test_a_query_is_joined_by_weights_that_were_fitted_without_it():
    rows = made_rows(20, (0.5, 0.5))
    fitted = fit(rows, NAMES, 100, judged=True)
    place = 3
    kept = [part is not fitted.parts[place] for part in fitted.parts]
    assert sum(kept) == 20 - 20 // FOLDS
    # Another label of this query changes the weights of all other queries, not its own.
    other = changed(rows[place : place + 1], scores=lambda given: given[::-1])
    again = fit([*rows[:place], *other, *rows[place + 1 :]], NAMES, 100, judged=True)
    same = [a.retrievers[0].weight == b.retrievers[0].weight for a, b in zip(fitted.parts, again.parts, strict=True)]
    assert same == [not without for without in kept]
    low, high = fitted.ranges()["words"]
    assert low <= fitted.fusion.retrievers[0].weight <= high


def test_lists_that_look_alike_are_noticed(caplog):
    rows = made_rows(30, (0.5, 0.5))
    assert fit(rows, NAMES, 100, judged=True).fusion.told_apart
    alike = changed(rows, lists=lambda _, ranked: {key: s / max(ranked.values()) for key, s in ranked.items()})
    assert not fit(alike, NAMES, 100, judged=True).fusion.told_apart
    assert "DistilledHybridRetriever knows them by name" in caplog.text


def test_too_few_labels_are_refused():
    rows = made_rows(9, (0.5, 0.5))
    flat = row(9, rows[0].lists, [0.0] * 12, rows[0].document_ids)
    with pytest.raises(ValueError, match="Of 10 labelled queries 9 have candidates that the teacher tells apart"):
        fit([*rows, flat], NAMES, 100, judged=True)


def test_a_retriever_that_finds_nothing_is_refused():
    rows = made_rows(12, (0.5, 0.5))
    with pytest.raises(ValueError, match="'sparse' found nothing for any of 12 queries"):
        fit(rows, (*NAMES, "sparse"), 100, judged=True)


def test_retrievers_over_other_documents_are_refused():
    rows = changed(
        made_rows(12, (0.5, 0.5)), lists=lambda name, ranked: {f"{name}-{key}": s for key, s in ranked.items()}
    )
    with pytest.raises(ValueError, match="'words' found no document that another one found too"):
        fit(rows, NAMES, 100, judged=True)


def test_a_teacher_that_prefers_what_all_put_last_is_refused():
    lists = {"words": {"a": 2.0, "b": 1.0, "c": 0.5}, "dense": {"a": 0.9, "c": 0.5, "b": 0.1}}
    rows = [row(n, lists, [0.0, 1.0, 1.0], ["a", "b", "c"]) for n in range(12)]
    with pytest.raises(ValueError, match="prefers what words and dense put last"):
        fit(rows, NAMES, 100, judged=True)


def test_scores_that_neither_fall_nor_rise_are_refused():
    with pytest.raises(ValueError, match="neither fall nor rise"):
        describe("words", [{"a": 1.0, "b": 2.0}, {"a": 2.0, "b": 1.0}])
    assert describe("words", [{"a": 1.0, "b": 2.0}, {"a": 2.0, "b": 2.0}]).falls is False
    assert describe("words", [{"a": 1.0, "b": 1.0}]).falls is True


def test_negative_scores_and_grades_are_fitted():
    rows = changed(
        made_rows(150, (0.3, 0.7)),
        lists=lambda _, ranked: {key: score - 500 for key, score in ranked.items()},
        scores=lambda given: [score or -1.0 for score in given],
    )
    fitted = fit(rows, NAMES, 100, judged=True)
    assert fitted.fusion.retrievers[1].weight == pytest.approx(0.7, abs=0.08)


def test_lists_survive_a_training_set(tmp_path):
    rows = made_rows(3, (0.5, 0.5))
    write_training_set(tmp_path / "set", rows, source="s", retriever="r", similarity="none", teacher={"model": "t"})
    read = list(TrainingSet.open(tmp_path / "set").labelled())
    assert read == rows
    assert [list(one.lists["words"]) for one in read] == [list(one.lists["words"]) for one in rows]
    own = read[0].scores_of("words")
    assert own == [rows[0].lists["words"][key] for key in rows[0].document_ids]
    assert row(0, {"words": {"a": 1.0}}, None, ["a", "b"]).scores_of("words") == [1.0, None]
