"""The loss of `strong` against a plain computation, and what moves what."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from haystack_distill.losses.mined_responses import MinedResponsesLoss


def plain(queries, human, mined, teacher, weight, scale):
    """One number at a time, as the docstring has it."""

    def similarity(one, other):
        return scale * float(one @ other) / math.sqrt(float(one @ one) * float(other @ other))

    batch, count = mined.shape[:2]
    main = distillation = 0.0
    for row in range(batch):
        own = similarity(queries[row], human[row])
        main += math.log(sum(math.exp(similarity(queries[row], one) - own) for one in human)) / batch
        found = [similarity(queries[row], one) for one in mined[row]]
        for number in range(1, count):
            wanted = teacher[row][0] - teacher[row][number]
            distillation += (found[0] - found[number] - wanted) ** 2 / (batch * (count - 1))
    return main + weight * distillation


@st.composite
def batches(draw):
    batch, count = draw(st.integers(2, 4)), draw(st.integers(2, 4))
    random = np.random.default_rng(draw(st.integers(0, 10_000)))
    shapes = (batch, 3), (batch, 3), (batch, count, 3), (batch, count)
    return tuple(torch.tensor(random.normal(size=shape)) for shape in shapes)


def loss_of(queries, human, mined, teacher, **options):
    loss = MinedResponsesLoss(None, **options)
    return loss.compute_loss_from_embeddings([queries, human, *mined.unbind(1)], teacher)


@settings(max_examples=60, deadline=None)
@given(batches(), st.floats(0, 2), st.floats(0.5, 20))
def test_is_what_a_plain_computation_gives(batch, weight, scale):
    found = loss_of(*batch, weight=weight, scale=scale)
    expected = plain(*(one.numpy() for one in batch), weight, scale)
    assert float(found) == pytest.approx(expected, rel=1e-3, abs=1e-4)


@given(batches())
def test_vectors_of_half_precision_are_counted_in_single(batch):
    halves = [one.bfloat16() for one in batch]
    assert loss_of(*halves, weight=1.0) == loss_of(*(one.float() for one in halves), weight=1.0)


@given(batches())
def test_the_unit_of_the_teachers_margins_is_that_of_the_similarities(batch):
    """A student whose scores are the teacher's has nothing left to learn from it."""
    queries, human, mined, _ = batch
    teacher = 20 * torch.cosine_similarity(queries[:, None], mined, dim=2) + 3
    with_it, without = (loss_of(queries, human, mined, teacher, weight=weight) for weight in (1.0, 0.0))
    assert float(with_it) == pytest.approx(float(without), abs=1e-4)


def test_mined_responses_are_no_negatives():
    """Many of them are as good a reply as the human one: only the teacher moves them."""
    mined = torch.randn(2, 3, 4, requires_grad=True)
    loss_of(torch.randn(2, 4), torch.randn(2, 4), mined, torch.randn(2, 3), weight=0.0).backward()
    assert not mined.grad.any()
