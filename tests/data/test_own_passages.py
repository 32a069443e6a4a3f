"""Targets that are moved toward the passages that sentences stand in."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from haystack_distill.align.job import align
from haystack_distill.align.settings import KaleSettings
from haystack_distill.align.training import TrainingSettings
from haystack_distill.data.index import IndexView
from haystack_distill.data.own_passages import judged_by_place, toward_own_passages
from haystack_distill.evaluation.held_out import split_index_text

DIM = 4


def an_index(vectors):
    return IndexView([f"d{n}" for n in range(len(vectors))], [""] * len(vectors), vectors, "cosine", fingerprint="")


def plain_target(teacher, passages, weight):
    """One vector at a time, in Python's own numbers."""

    def length(vector):
        return math.sqrt(sum(value * value for value in vector))

    def direction(vector):
        return [value / length(vector) for value in vector]

    mean = [sum(column) / len(passages) for column in zip(*map(direction, passages), strict=True)]
    between = [(1 - weight) * t + weight * p for t, p in zip(direction(teacher), direction(mean), strict=True)]
    return [value * length(teacher) for value in direction(between)]


# Positive, so that no sum of directions is zero.
vectors = st.lists(st.floats(0.1, 10), min_size=DIM, max_size=DIM)


@settings(max_examples=50, deadline=None)
@given(
    teacher=st.lists(vectors, min_size=3, max_size=3),
    documents=st.lists(vectors, min_size=3, max_size=3),
    weight=st.floats(0, 0.99),
)
def test_targets_are_what_a_plain_computation_gives(teacher, documents, weight):
    given_vectors = np.array(teacher)
    places = {"in one": [1], "in two": [0, 2]}
    targets = toward_own_passages(
        given_vectors, ["in one", "a query", "in two"], places, an_index(np.array(documents)), weight
    )
    assert targets[0] == pytest.approx(plain_target(teacher[0], [documents[1]], weight))
    assert targets[1].tolist() == teacher[1]
    assert targets[2] == pytest.approx(plain_target(teacher[2], [documents[0], documents[2]], weight))
    assert given_vectors.tolist() == teacher, "the teacher's vectors, which are kept for the next run, must stay"


def test_without_weight_the_teacher_is_the_target():
    teacher = np.ones((1, DIM))
    assert toward_own_passages(teacher, ["a"], {"a": [0]}, an_index(np.eye(DIM)), 0) is teacher


@pytest.mark.parametrize("weight", [-0.1, 1, float("nan")])
def test_a_weight_out_of_bounds_is_refused(weight):
    with pytest.raises(ValueError, match="passage_weight must be at least 0 and below 1"):
        KaleSettings(passage_weight=weight)


def test_a_sentence_is_judged_by_where_it_stands(index):
    parts = split_index_text(index, seed=0)
    qrels = judged_by_place(parts.proof, parts.places, index)
    texts = dict(zip(index.ids, index.texts, strict=True))
    assert qrels.keys() == parts.proof.keys()
    for query_id, sentence in parts.proof.items():
        assert qrels[query_id].keys() == {one for one, text in texts.items() if sentence in text}


@pytest.mark.parametrize("layers", [0, 1])
def test_sentences_come_nearer_to_their_passages(index, teacher, tmp_path, layers):
    """Of the way that is left to them, which is short: random encoders put all texts near each other."""
    parts = split_index_text(index, seed=0)
    own = np.stack([index.vectors[parts.places[sentence]].mean(axis=0) for sentence in parts.rest])

    def distance(weight):
        training = TrainingSettings(epochs=10, batch_size=16)
        wanted = KaleSettings(layers=layers, passage_weight=weight, training=training)
        student = align(index, teacher, wanted, tmp_path / str(weight), test=(), progress=False).student
        return np.linalg.norm(student.encode(parts.rest) - own, axis=1).mean()

    assert distance(0.8) < 0.9 * distance(0.0)
