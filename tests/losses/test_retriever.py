# SPDX-FileCopyrightText: 2026-present haystack-distill contributors
#
# SPDX-License-Identifier: Apache-2.0

"""Each loss against a slow, plain computation of its equation."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from haystack_distill.losses import retriever
from haystack_distill.losses.retriever import RetrieverLoss
from haystack_distill.losses.weights import DivergedError

TEMPERATURE = 0.05


class Fixed(torch.nn.Module):
    """Stands for an encoder: the features are the vectors."""

    def forward(self, features):
        return {"sentence_embedding": features["vectors"]}


def softmax(values):
    weights = [math.exp(value - max(values)) for value in values]
    return [weight / sum(weights) for weight in weights]


def inner(first, second):
    return sum(float(a) * float(b) for a, b in zip(first, second, strict=True))


def slow(name, query, candidates, negatives, documents, teacher, others):
    """The loss of one query, from the definition."""
    scores = [inner(query, documents[row]) / TEMPERATURE for row in candidates]
    target = softmax(list(teacher))
    if name == "kl":
        student = softmax(scores)
        # sentence-transformers multiplies by the student's temperature squared, as Hinton et al. do
        return TEMPERATURE**2 * sum(t * math.log(t / s) for t, s in zip(target, student, strict=True) if t > 0)
    if name == "listwise":
        everything = softmax([inner(query, document) / TEMPERATURE for document in documents])
        return -sum(t * math.log(everything[row]) for t, row in zip(target, candidates, strict=True))
    if name == "emdr2":
        student = softmax(scores)
        return -math.log(sum(math.exp(t) * s for t, s in zip(teacher, student, strict=True)))
    if name == "margin_mse":
        errors = [
            ((scores[0] - score) - (teacher[0] - t)) ** 2 for score, t in zip(scores[1:], teacher[1:], strict=True)
        ]
        return sum(errors) / len(errors)
    mass = softmax([inner(query, documents[row]) / TEMPERATURE for row in [candidates[0], *others, *negatives]])
    return -math.log(mass[0])


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 10_000), st.sampled_from(retriever.NAMES))
def test_the_equations(seed, name):
    random = np.random.default_rng(seed)
    documents = random.normal(size=(9, 6)) / 6**0.5
    queries = random.normal(size=(3, 6)) / 6**0.5
    candidates = np.stack([random.permutation(9)[:4] for _ in range(3)])
    teacher = -np.sort(-random.normal(size=(3, 4)), axis=1)
    negatives = random.integers(9, size=(3, 2))
    loss = RetrieverLoss(
        Fixed(),
        {name: 1.0},
        candidates,
        teacher,
        negatives if name == "contrastive" else None,
        documents.astype(np.float32),
        temperature=TEMPERATURE,
    )
    found = loss([{"vectors": torch.tensor(queries, dtype=torch.float32)}], torch.arange(3))
    pooled = [
        [row for number in range(3) for row in ([candidates[number][0], *negatives[number]] if number != one else [])]
        for one in range(3)
    ]
    expected = np.mean(
        [
            slow(name, queries[one], candidates[one], negatives[one], documents, teacher[one], pooled[one])
            for one in range(3)
        ]
    )
    assert float(found) == pytest.approx(expected, rel=1e-4, abs=1e-6)


def test_a_sum_is_the_sum_of_its_parts():
    random = np.random.default_rng(0)
    arguments = (np.array([[0, 1], [2, 3]]), np.array([[1.0, 0.0], [2.0, 0.0]]), None, random.normal(size=(5, 4)))
    features = [{"vectors": torch.tensor(random.normal(size=(2, 4)), dtype=torch.float32)}]

    def of(**weights):
        return float(RetrieverLoss(Fixed(), weights, *arguments)(features, torch.arange(2)))

    assert of(kl=0.5, listwise=2.0) == pytest.approx(0.5 * of(kl=1.0) + 2 * of(listwise=1.0), rel=1e-5)


def test_moving_documents_compete_with_those_of_the_batch():
    random = np.random.default_rng(1)
    vectors = torch.tensor(random.normal(size=(6, 4)), dtype=torch.float32)
    candidates = np.array([[0, 1], [1, 2]])
    teacher = np.array([[1.0, 0.0], [0.5, 0.0]])
    queries = {"vectors": torch.tensor(random.normal(size=(2, 4)), dtype=torch.float32)}
    moving = RetrieverLoss(Fixed(), {"listwise": 1.0}, candidates, teacher)
    columns = [{"vectors": vectors[candidates[:, place]]} for place in range(2)]
    # The batch holds the documents 0, 1 and 2, and 1 counts once.
    fixed = RetrieverLoss(Fixed(), {"listwise": 1.0}, candidates, teacher, None, vectors[:3].numpy())
    expected = float(fixed([queries], torch.arange(2)))
    assert float(moving([queries, *columns], torch.arange(2))) == pytest.approx(expected, rel=1e-5)


def test_a_large_index_is_sampled_the_same_way_each_time(monkeypatch):
    monkeypatch.setattr(retriever, "POOL", 8)
    random = np.random.default_rng(2)
    documents = random.normal(size=(50, 4)).astype(np.float32)
    loss = RetrieverLoss(Fixed(), {"listwise": 1.0}, np.array([[3, 40]]), np.array([[1.0, 0.0]]), None, documents)
    features = [{"vectors": torch.tensor(random.normal(size=(1, 4)), dtype=torch.float32)}]
    first = float(loss(features, torch.arange(1)))
    assert float(loss(features, torch.arange(1))) == first
    pool, positions = loss._pool(loss.candidates, torch.empty(0), features[0]["vectors"])
    assert len(pool) <= 10
    assert torch.equal(pool[positions[0]], torch.from_numpy(documents[[3, 40]]))


def test_a_loss_that_is_no_number_stops():
    loss = RetrieverLoss(Fixed(), {"kl": 1.0}, np.array([[0, 1]]), np.array([[1.0, 0.0]]), None, np.eye(2))
    with pytest.raises(DivergedError, match="lower the learning rate"):
        loss([{"vectors": torch.full((1, 2), float("nan"))}], torch.arange(1))
