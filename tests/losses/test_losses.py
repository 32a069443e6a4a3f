import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from haystack_distill.losses import index_ranking
from haystack_distill.losses.alignment import AlignmentLoss
from haystack_distill.losses.cosine import cosine_loss
from haystack_distill.losses.index_ranking import IndexSample, index_ranking_loss
from haystack_distill.losses.kale import kale_loss
from haystack_distill.losses.mse import mse_loss
from haystack_distill.losses.table import ALIGNMENT
from haystack_distill.losses.weights import checked_weights

VECTORS = arrays(np.float64, (3, 5), elements=st.floats(-4, 4))
TEMPERATURES = st.floats(0.5, 20)


def softmax(values: list[float]) -> list[float]:
    largest = max(values)
    powers = [np.exp(value - largest) for value in values]
    return [power / sum(powers) for power in powers]


def divergence(target: list[float], approximation: list[float]) -> float:
    return sum(p * (np.log(p) - np.log(q)) for p, q in zip(target, approximation, strict=True) if p > 0)


@settings(max_examples=50, deadline=None)
@given(student=VECTORS, teacher=VECTORS, temperature=TEMPERATURES)
def test_kale_is_the_papers_equation(student, teacher, temperature):
    """T^2 * KL(softmax(t / T) || softmax(s / T)) over dimensions, mean over the batch, computed number by number."""
    rows = [
        temperature**2 * divergence(softmax(list(t / temperature)), softmax(list(s / temperature)))
        for s, t in zip(student, teacher, strict=True)
    ]
    loss = kale_loss(torch.tensor(student), torch.tensor(teacher), temperature)
    assert loss.item() == pytest.approx(np.mean(rows), abs=2e-4, rel=1e-3)


@settings(max_examples=30, deadline=None)
@given(student=VECTORS, teacher=VECTORS, documents=arrays(np.float64, (7, 5), elements=st.floats(-2, 2)))
def test_index_ranking_is_kl_over_documents(student, teacher, documents):
    rows = [
        divergence(
            softmax([float(t @ document) / 0.7 for document in documents]),
            softmax([float(s @ document) / 0.7 for document in documents]),
        )
        for s, t in zip(student, teacher, strict=True)
    ]
    vectors = (torch.tensor(values).float() for values in (student, teacher, documents))
    value = index_ranking_loss(*vectors, 0.7)
    assert value.item() == pytest.approx(np.mean(rows), abs=2e-3, rel=2e-3)


def test_kale_does_not_see_a_constant_offset_and_squared_error_does(teacher):
    """The blind spot of the paper's loss: all dimensions shifted by the same amount."""
    vectors = torch.randn(4, 32, generator=torch.Generator().manual_seed(0))
    shifted = vectors + 0.5
    documents = np.eye(32, dtype=np.float32)
    kale, squared = (AlignmentLoss(teacher.model, {name: 1.0}, documents) for name in ("kale", "mse"))
    assert kale.compute_loss_from_embeddings(shifted, vectors).item() == pytest.approx(0, abs=1e-6)
    assert squared.compute_loss_from_embeddings(shifted, vectors).item() == pytest.approx(32 * 0.25, rel=1e-4)


@settings(max_examples=30, deadline=None)
@given(student=VECTORS, teacher=VECTORS, norm=st.floats(0.5, 4))
def test_distance_and_angle_number_by_number(student, teacher, norm):
    student, teacher = student + 5, teacher + 5  # no vector of length 0, which has no angle
    distances, cosines = [], []
    for s, t in zip(student.tolist(), teacher.tolist(), strict=True):
        distances.append(sum((a - b) ** 2 for a, b in zip(s, t, strict=True)) / norm**2)
        lengths = sum(a * a for a in s) ** 0.5 * sum(b * b for b in t) ** 0.5
        cosines.append(sum(a * b for a, b in zip(s, t, strict=True)) / lengths)
    vectors = torch.tensor(student), torch.tensor(teacher)
    assert mse_loss(*vectors, norm).item() == pytest.approx(np.mean(distances), rel=1e-4, abs=1e-6)
    assert cosine_loss(*vectors).item() == pytest.approx(1 - np.mean(cosines), abs=1e-5)


@pytest.mark.parametrize("name", ALIGNMENT)
def test_every_loss_is_smallest_for_the_teachers_own_vectors_and_pulls_towards_them(name, teacher):
    random = torch.Generator().manual_seed(1)
    target = torch.nn.functional.normalize(torch.randn(8, 32, generator=random), dim=-1)
    documents = torch.nn.functional.normalize(torch.randn(40, 32, generator=random), dim=-1)
    loss = AlignmentLoss(teacher.model, {name: 1.0}, documents.numpy())
    student = torch.nn.Parameter(torch.randn(8, 32, generator=random))
    before = loss.compute_loss_from_embeddings(student, target)
    before.backward()
    assert loss.compute_loss_from_embeddings(target, target).item() == pytest.approx(0, abs=1e-5)
    assert student.grad.norm() > 0
    with torch.no_grad():
        moved = student - 1e-2 * student.grad / student.grad.norm()
    assert loss.compute_loss_from_embeddings(moved, target) < before


def test_a_weighted_sum_adds_its_parts(teacher):
    """The sum is what each loss gives alone, times its weight, for the same student."""
    texts = ["river bridge stone", "winter market garden"]
    documents = teacher.encode_documents(["copper velvet", "thunder meadow", "sailor window"])
    labels = torch.tensor(teacher.encode_queries(["island jacket", "kettle ladder"]))

    def value(weights):
        features = teacher.model.preprocess(texts)
        return AlignmentLoss(teacher.model, weights, documents)([features], labels).item()

    parts = 2 * value({"cosine": 1}) + 0.5 * value({"index_ranking": 1}) + value({"kale": 1})
    assert value({"cosine": 2, "index_ranking": 0.5, "kale": 1}) == pytest.approx(parts, rel=1e-4)


def test_weights_mean_the_same_whatever_the_length_of_the_teachers_vectors(teacher):
    """Twice as long vectors on both sides leave the loss as it is."""
    random = torch.Generator().manual_seed(2)
    student, target = torch.randn(2, 4, 32, generator=random)
    documents = torch.randn(20, 32, generator=random).numpy()
    norm = float(target.norm(dim=1).mean())
    for name in ("mse", "index_ranking"):
        one = AlignmentLoss(teacher.model, {name: 1.0}, documents, teacher_norm=norm)
        two = AlignmentLoss(teacher.model, {name: 1.0}, 2 * documents, teacher_norm=2 * norm)
        small = one.compute_loss_from_embeddings(student, target)
        large = two.compute_loss_from_embeddings(2 * student, 2 * target)
        assert small.item() == pytest.approx(large.item(), rel=1e-4)


def test_a_large_index_is_sampled_with_its_hard_neighbours(monkeypatch):
    monkeypatch.setattr(index_ranking, "ALL_UP_TO", 1000)
    monkeypatch.setattr(index_ranking, "RANDOM", 100)
    documents = np.random.default_rng(0).normal(size=(5000, 16)).astype(np.float32)
    documents /= np.linalg.norm(documents, axis=1, keepdims=True)
    sample = IndexSample(documents)
    teacher = torch.tensor(documents[:4] + 0.01)
    candidates = sample(teacher).numpy()
    assert 100 < len(candidates) < 100 + 4 * index_ranking.NEIGHBOURS + 1
    for row in documents[:4]:  # the document nearest to each query is among them
        assert np.abs(candidates - row).max(axis=1).min() == 0
    assert np.array_equal(candidates, sample(teacher).numpy()), "a resumed run must see the same sample"


@pytest.mark.parametrize("weights", [{}, {"kl": 1.0}, {"mse": 0}, {"mse": float("nan")}, {"mse": -1}])
def test_bad_weights_are_refused(weights):
    with pytest.raises(ValueError, match="loss"):
        checked_weights(weights, ALIGNMENT)


def test_a_weight_written_by_hand_in_yaml_is_a_number():
    assert checked_weights({"mse": "1e-5"}, ALIGNMENT) == {"mse": 1e-5}


@pytest.mark.parametrize("temperature", [0, -1, float("inf"), float("nan")])
def test_a_bad_temperature_is_refused(temperature, teacher):
    for name in ("temperature", "ranking_temperature"):
        with pytest.raises(ValueError, match=f"The {name} "):
            AlignmentLoss(teacher.model, {"kale": 1.0}, np.eye(3, dtype=np.float32), **{name: temperature})


def test_ranking_needs_two_documents(teacher):
    with pytest.raises(ValueError, match="at least two"):
        AlignmentLoss(teacher.model, {"index_ranking": 1.0}, np.ones((1, 3), dtype=np.float32))
