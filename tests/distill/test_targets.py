import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from haystack_distill.data.training_set import Row
from haystack_distill.distill.targets import targets_of
from haystack_distill.losses.temperature import entropy_temperature

IDS = [f"d{number}" for number in range(20)]


def row(name, documents, scores):
    return Row(name, f"query {name}", [], documents, ["text"] * len(documents), [0.0] * len(documents), scores)


@given(st.data())
def test_the_favourite_comes_first_and_every_score_stays_with_its_document(data):
    rows = []
    for number in range(data.draw(st.integers(1, 8))):
        documents = data.draw(st.lists(st.sampled_from(IDS), min_size=3, max_size=3, unique=True))
        scores = data.draw(st.lists(st.floats(-9, 9), min_size=3, max_size=3))
        rows.append(row(f"q{number}", documents, scores))
    told = [one for one in rows if len(set(one.teacher_scores)) > 1]
    if not told:
        with pytest.raises(ValueError, match="all teacher scores equal"):
            targets_of(rows, IDS)
        return
    targets = targets_of(rows, IDS)
    assert targets.query_ids == [one.query_id for one in told]
    assert targets.skipped.get("all teacher scores equal", 0) == len(rows) - len(told)
    assert (np.diff(targets.scores, axis=1) <= 0).all()
    for one, candidates, scores in zip(told, targets.candidates, targets.scores, strict=True):
        given_scores = dict(zip(one.document_ids, one.teacher_scores, strict=True))
        assert {IDS[candidate]: score for candidate, score in zip(candidates, scores, strict=True)} == given_scores


def test_rows_that_teach_nothing_are_counted():
    rows = [
        *[row(f"q{number}", IDS[number : number + 3], [1.0, 2.0, 3.0]) for number in range(12)],
        row("one passage", ["d1"], [1.0]),
        row("equal", ["d1", "d2", "d3"], [1.0, 1.0, 1.0]),
        row("elsewhere", ["d1", "other", "d3"], [1.0, 2.0, 3.0]),
        row("short", ["d1", "d2"], [1.0, 2.0]),
        row("not labelled", ["d1", "d2", "d3"], None),
    ]
    targets = targets_of(rows, IDS)
    assert len(targets) == 12
    assert targets.skipped == {
        "candidates that are not in the index": 1,
        "fewer than two passages": 1,
        "all teacher scores equal": 1,
        "fewer passages than nine rows in ten": 1,
    }


def test_fewer_passages_are_the_retriever_s_first():
    targets = targets_of([row("q", ["d5", "d6", "d7"], [1.0, 2.0, 3.0])], IDS, passages=2)
    assert targets.candidates.tolist() == [[6, 5]]


def test_a_set_of_another_index_is_refused():
    with pytest.raises(ValueError, match=r"not in the index \('x' is one\)"):
        targets_of([row("q", ["x", "y"], [1.0, 2.0])], IDS)


def slow_entropy(scores, temperature):
    """By the definition, one number at a time."""
    entropies = []
    for line in scores:
        top = max(line)
        weights = [math.exp((score - top) / temperature) for score in line]
        entropies.append(-sum(w / sum(weights) * math.log(w / sum(weights)) for w in weights if w > 0))
    return sum(entropies) / len(entropies) / math.log(len(scores[0]))


@settings(max_examples=30)
@given(st.integers(0, 1000), st.floats(0.1, 0.9), st.sampled_from([1e-3, 1.0, 500.0]))
def test_the_temperature_gives_the_entropy_whatever_the_teacher_s_scale(seed, target, scale):
    scores = np.random.default_rng(seed).normal(size=(6, 5)) * scale
    temperature = entropy_temperature(scores, target)
    assert slow_entropy(scores, temperature) == pytest.approx(target, abs=1e-3)


@pytest.mark.parametrize("target", [0.0, 1.0, -1.0])
def test_an_impossible_entropy_is_refused(target):
    with pytest.raises(ValueError, match="between 0 and 1"):
        entropy_temperature(np.eye(3), target)


def test_ties_keep_the_entropy_above(caplog):
    temperature = entropy_temperature([[1.0, 1.0, 0.0]], 0.1)
    assert slow_entropy([[1.0, 1.0, 0.0]], temperature) == pytest.approx(math.log(2) / math.log(3))
    assert "ties" in caplog.text
