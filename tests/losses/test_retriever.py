"""Each loss against a slow, plain computation of its equation."""

import math
import os
import subprocess
import sys

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from haystack_distill.losses import retriever
from haystack_distill.losses.retriever import RetrieverLoss
from haystack_distill.losses.table import RETRIEVER
from haystack_distill.losses.temperature import entropy_temperature
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


def slow(name, query, candidates, negatives, documents, teacher, others, margin):
    """The loss of one query, from the definition."""
    scores = [inner(query, documents[row]) / TEMPERATURE for row in candidates]
    target = softmax(list(teacher))
    if name == "kl":
        student = softmax(scores)
        return sum(t * math.log(t / s) for t, s in zip(target, student, strict=True) if t > 0)
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
        return sum(errors) / len(errors) / (2 * margin)
    against = [row for row in [*others, *negatives] if row != candidates[0]]
    mass = softmax([inner(query, documents[row]) / TEMPERATURE for row in [candidates[0], *against]])
    return -math.log(mass[0])


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 10_000), st.sampled_from(sorted(RETRIEVER)))
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
    margins = [(row[0] - value) ** 2 for row in teacher for value in row[1:]]
    margin = math.sqrt(sum(margins) / len(margins))
    expected = np.mean(
        [
            slow(name, queries[one], candidates[one], negatives[one], documents, teacher[one], pooled[one], margin)
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


def gradient_norm(name, seed=0):
    """Of the loss by 32 queries that find their eight candidates in an order of their own; the default entropy."""
    random = np.random.default_rng(seed)
    documents = random.normal(size=(400, 48))
    documents /= np.linalg.norm(documents, axis=1, keepdims=True)
    candidates = np.stack([random.permutation(400)[:8] for _ in range(32)])
    scores = -np.sort(-random.normal(size=(32, 8)), axis=1)
    teacher = scores / entropy_temperature(scores, 0.3)
    negatives = random.integers(400, size=(32, 7)) if name == "contrastive" else None
    queries = torch.tensor(documents[candidates].sum(1) + 0.1 * random.normal(size=(32, 48)), dtype=torch.float32)
    queries = torch.nn.functional.normalize(queries, dim=1).requires_grad_()
    loss = RetrieverLoss(Fixed(), {name: 1.0}, candidates, teacher, negatives, documents.astype(np.float32))
    loss([{"vectors": queries}], torch.arange(32)).backward()
    return float(queries.grad.norm())


def test_a_weight_means_about_the_same_for_every_loss():
    """`kl` was 1/400 of the others, and `margin_mse` 17 times as much."""
    norms = {name: gradient_norm(name) for name in RETRIEVER}
    assert max(norms.values()) < 3 * min(norms.values()), norms


@st.composite
def contrastive_batches(draw):
    """Queries over few passages, so that favourites and negatives are shared, and a way to shuffle them."""
    count = draw(st.integers(2, 6))
    favourites = draw(st.lists(st.integers(0, 4), min_size=count, max_size=count))
    negatives = draw(st.lists(st.tuples(*[st.integers(0, 7)] * 2), min_size=count, max_size=count))
    return draw(st.integers(0, 1000)), favourites, negatives, draw(st.permutations(range(count)))


def contrastive(vectors, documents, favourites, negatives):
    """The loss where each favourite stands before a passage that counts for nothing."""
    candidates = np.array([[favourite, 8] for favourite in favourites])
    teacher = np.tile([1.0, 0.0], (len(favourites), 1))
    loss = RetrieverLoss(Fixed(), {"contrastive": 1.0}, candidates, teacher, np.array(negatives), documents)
    return float(loss([{"vectors": torch.tensor(vectors)}], torch.arange(len(favourites))))


@settings(max_examples=60, deadline=None)
@given(contrastive_batches())
def test_a_right_passage_is_never_a_negative_of_its_own_row(batch):
    """Not where it is another row's favourite, nor where it was mined for another; and the rows' order is nothing."""
    seed, favourites, negatives, order = batch
    random = np.random.default_rng(seed)
    documents = random.normal(size=(9, 4)).astype(np.float32) / 2
    vectors = random.normal(size=(len(favourites), 4)).astype(np.float32) / 2
    found = contrastive(vectors, documents, favourites, negatives)
    losses = []
    for query, favourite in zip(vectors, favourites, strict=True):
        against = [row for row in [*favourites, *(row for some in negatives for row in some)] if row != favourite]
        mass = softmax([inner(query, documents[row]) / TEMPERATURE for row in [favourite, *against]])
        losses.append(-math.log(mass[0]) if mass[0] else math.inf)
    if max(losses) < 80:  # beyond, a probability is too small for the slow way
        assert found == pytest.approx(np.mean(losses), rel=1e-4, abs=1e-5)
    shuffled = [[values[place] for place in order] for values in (favourites, negatives)]
    assert contrastive(vectors[list(order)], documents, *shuffled) == pytest.approx(found, rel=1e-5, abs=1e-5)


def test_a_row_that_is_there_twice_costs_no_more():
    """Two questions with one right passage, and no other passage: there is nothing to tell them from."""
    documents = np.eye(9, dtype=np.float32)
    vectors = np.tile(documents[3] + 0.1, (2, 1)).astype(np.float32)
    assert contrastive(vectors, documents, [3, 3], [[3, 3], [3, 3]]) == pytest.approx(0, abs=1e-6)
    assert contrastive(vectors, documents, [3, 3], [[3, 5], [3, 3]]) == pytest.approx(
        contrastive(vectors[:1], documents, [3], [[5]]), abs=1e-6
    )


PROCESS = """
import sys
import numpy as np, torch
from tests.losses.test_retriever import contrastive_of
rank, store, out = int(sys.argv[1]), sys.argv[2], sys.argv[3]
torch.distributed.init_process_group("gloo", init_method=f"file://{store}", rank=rank, world_size=2)
np.save(f"{out}{rank}", contrastive_of(slice(3 * rank, 3 * rank + 3)))
"""


def contrastive_of(part):
    """The loss of some rows of a batch of six, whose favourites repeat."""
    random = np.random.default_rng(5)
    documents = random.normal(size=(9, 4)).astype(np.float32) / 2
    vectors = random.normal(size=(6, 4)).astype(np.float32) / 2
    favourites, negatives = [0, 1, 2, 1, 0, 3], [[2, 5], [4, 6], [7, 5], [6, 7], [4, 3], [1, 5]]
    return contrastive(vectors[part], documents, favourites[part], negatives[part])


def test_documents_of_all_processes_compete_but_for_the_right_ones(tmp_path):
    """Two processes with half a batch each: the mean of their losses is that of the whole batch in one."""
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", PROCESS, str(rank), str(tmp_path / "store"), str(tmp_path / "loss")],
            env={**os.environ, "WORLD_SIZE": "2", "RANK": str(rank)},
        )
        for rank in range(2)
    ]
    assert [process.wait(timeout=300) for process in processes] == [0, 0]
    parts = [float(np.load(tmp_path / f"loss{rank}.npy")) for rank in range(2)]
    assert np.mean(parts) == pytest.approx(contrastive_of(slice(None)), rel=1e-5)


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
