"""A fitted fusion joins lists by its weights, and knows whose list is whose."""

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from haystack_distill.fusion.model import FILE, Fusion, Retriever
from haystack_distill.fusion.scales import SCALES

WORDS = Retriever("words", 0.25, True, (12.0, 4.0), (3.0, 1.0), 1.0, 30.0)
DENSE = Retriever("dense", 0.75, True, (0.6, 0.1), (0.2, 0.05), 0.0, 0.95)
FUSION = Fusion("min-max", 100, (WORDS, DENSE))
A, B = {"a": 14.0, "b": 8.0, "c": 2.0}, {"b": 0.7, "d": 0.2}
SCORES = st.lists(st.integers(-50, 50), min_size=1, max_size=20)


def falling(scores):
    return {f"d{place}": score / 4 for place, score in enumerate(sorted(scores, reverse=True))}


def test_a_weighted_sum_is_of_scores_between_0_and_1():
    found = FUSION.join({"words": A, "dense": B})
    assert found == pytest.approx({"b": 0.25 * 0.5 + 0.75, "a": 0.25, "c": 0.0, "d": 0.0})
    assert list(found)[:2] == ["b", "a"]


def test_what_a_retriever_did_not_return_counts_as_its_last():
    standard = np.array([14, 8, 2]) - 8.0
    standard /= standard.std()
    found = Fusion("z-score", 100, (WORDS, DENSE)).join({"words": A, "dense": B})
    expected = {"a": 0.25 * standard[0] - 0.75, "b": 0.75, "c": 0.25 * standard[2] - 0.75}
    assert found == pytest.approx({**expected, "d": 0.25 * standard[2] - 0.75})


def test_order_alone_is_weighted_reciprocal_rank_fusion():
    found = Fusion("rank", 100, (WORDS, DENSE)).join({"words": A, "dense": B})
    expected = {"a": 0.25 / 61, "b": 0.25 / 62 + 0.75 / 61, "c": 0.25 / 63, "d": 0.75 / 62}
    assert {key: score / 61 for key, score in found.items()} == pytest.approx(expected)


@given(SCORES, SCORES, st.sampled_from(sorted(SCALES)))
def test_the_order_does_not_depend_on_units_where_scores_are_scaled(first, second, scale):
    fusion = Fusion(scale, 100, (WORDS, DENSE))
    lists = {"words": falling(first), "dense": {f"d{n + 3}": score for n, score in enumerate(falling(second).values())}}
    moved = {**lists, "words": {key: 3 * score + 5 for key, score in lists["words"].items()}}
    found, other = fusion.join(lists), fusion.join(moved)
    assert found == pytest.approx(other, abs=1e-9)
    assert sorted(found.values(), reverse=True) == list(found.values())
    assert found.keys() == lists["words"].keys() | lists["dense"].keys()


def test_distances_rise_and_are_turned():
    near = Retriever("near", 1.0, False, (0.1, 0.1), (2.0, 0.1), 0.0, 3.0)
    assert Fusion("min-max", 100, (near,)).join({"near": {"a": 0.5, "b": 1.5}}) == {"a": 1.0, "b": 0.0}


def test_empty_lists_and_equal_scores_are_joined():
    assert FUSION.join({"words": {}, "dense": {}}) == {}
    assert FUSION.join({"words": {}, "dense": B}) == pytest.approx({"b": 0.75, "d": 0.0})
    assert FUSION.join({"words": {"a": 5.0, "b": 5.0}}) == pytest.approx({"a": 0.25, "b": 0.25})
    assert FUSION.join({"dense": B}) == FUSION.join({"dense": B, "words": {}})


@pytest.mark.parametrize("score", [None, float("nan"), float("inf")])
def test_a_score_that_is_no_number_is_refused_by_name(score):
    with pytest.raises(ValueError, match="words returned the document 'b' without a score"):
        FUSION.join({"words": {"a": 3.0, "b": score}})


def test_a_retriever_of_another_name_is_refused():
    with pytest.raises(ValueError, match="fitted for words, dense, not for 'sparse'"):
        FUSION.join({"sparse": B})


def test_lists_are_told_apart_in_any_order():
    assert FUSION.whose([A, B]) == ["words", "dense"]
    assert FUSION.whose([B, A]) == ["dense", "words"]
    assert FUSION.whose([B]) == ["dense"]
    assert FUSION.whose([{"a": 0.9, "b": 0.4}, B]) == ["words", "dense"]  # few words in common with the query
    assert FUSION.whose([{}, B]) == ["words", "dense"]
    assert FUSION.whose([]) == []


@pytest.mark.parametrize(
    "lists",
    [
        [A, B, B],  # one too many
        [{"a": 900.0, "b": 0.1}, B],  # far from what either gives
        [{"a": 0.1, "b": 9.0}, B],  # distances
    ],
)
def test_a_list_that_can_be_of_none_is_refused(lists):
    with pytest.raises(
        ValueError, match=r"fitted for words \(scores 1 to 30, falling\), dense .* connect the retrievers"
    ):
        FUSION.whose(lists)


def test_what_is_written_is_what_is_read(tmp_path):
    (tmp_path / FILE).write_text(json.dumps(FUSION.content()))
    assert Fusion.load(tmp_path) == FUSION


@pytest.mark.parametrize("content", ["", "[]", '{"version": 1}', '{"version": 1, "retrievers": [{}]}'])
def test_a_broken_file_is_refused(tmp_path, content):
    (tmp_path / FILE).write_text(content)
    with pytest.raises(ValueError, match="is damaged .*: fit it again"):
        Fusion.load(tmp_path)


def test_a_file_of_another_version_and_a_missing_one_are_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match="make one with FusionDistiller"):
        Fusion.load(tmp_path)
    (tmp_path / FILE).write_text(json.dumps({**FUSION.content(), "version": 2}))
    with pytest.raises(ValueError, match="another version"):
        Fusion.load(tmp_path)
