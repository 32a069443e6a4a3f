"""The similarity teacher against plain cosines, and what it can't score."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sentence_transformers import SentenceTransformer

from haystack_distill.teachers.prompts import UnscorableError
from haystack_distill.teachers.scores import Candidates
from haystack_distill.teachers.similarity import SimilarityTeacher
from tests.conftest import sentences

TEXTS = sentences(8, 21)


@pytest.fixture(scope="module")
def encoder(bert) -> SentenceTransformer:
    return SentenceTransformer(bert, device="cpu")


def cosine(encoder: SentenceTransformer, one: str, other: str) -> float:
    first, second = (encoder.encode(text).astype(float) for text in (one, other))
    return float(first @ second / np.sqrt((first @ first) * (second @ second)))


@settings(max_examples=20, deadline=None)
@given(
    st.lists(st.sampled_from(TEXTS), min_size=1, max_size=4, unique=True),
    st.lists(st.sampled_from(TEXTS), min_size=2, max_size=4),
)
def test_the_score_is_the_mean_cosine_to_all_other_answers(encoder, passages, answers):
    row = Candidates("river?", passages, answers)
    teacher = SimilarityTeacher(encoder)
    if len(set(answers)) == 1 and answers[0] in passages:
        with pytest.raises(UnscorableError, match="can't be compared with itself"):
            teacher.score([row])
        return
    expected = [
        np.mean([cosine(encoder, passage, answer) for answer in answers if answer != passage]) for passage in passages
    ]
    alone, beside = teacher.score([row])[0], teacher.score([Candidates("x", TEXTS[:2], TEXTS[2:4]), row])[1]
    assert alone.scores == pytest.approx(expected, abs=1e-5)
    assert beside.scores == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize("answers", [[], [" "]])
def test_nothing_was_written(encoder, answers):
    with pytest.raises(UnscorableError, match="nothing was written .* GenerativeAugmenter"):
        SimilarityTeacher(encoder).score([Candidates("river?", TEXTS[:2], answers)])


def test_its_identity_names_what_its_scores_depend_on(encoder):
    assert SimilarityTeacher(encoder, name="mini").identity == {"model": "mini", "signal": "similarity"}
