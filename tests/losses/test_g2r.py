"""The loss of G2R against a plain computation, and its temperature."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sentence_transformers import SentenceTransformer

from haystack_distill.losses.g2r import G2RLoss
from haystack_distill.losses.temperature import entropy_temperature
from tests.conftest import sentences

NAN = float("nan")


def slow_loss(queries, candidates, negatives, labels, alpha, temperature, scale):
    """Section 3.2 of the notes on the authors' code, in loops over Python floats."""

    def product(first, second):
        return scale * sum(a * b for a, b in zip(first, second, strict=True))

    main, distillation = [], []
    for query, row, scores in zip(queries, candidates, labels, strict=True):
        there = [place for place, score in enumerate(scores) if not math.isnan(score)]
        random = [math.exp(product(query, one)) for one in negatives]
        own = {place: math.exp(product(query, row[place])) for place in there}
        main += [-math.log(own[place] / (own[place] + sum(random))) for place in there]
        weights = {place: math.exp(scores[place] / temperature) for place in there}
        total = sum(own.values()) + sum(random)
        distillation.append(
            -sum(weights[place] / sum(weights.values()) * math.log(own[place] / total) for place in there)
        )
    return (1 - alpha) * sum(main) / len(main) + alpha * sum(distillation) / len(distillation)


@st.composite
def batches(draw):
    batch, count, negatives, dim = (draw(st.integers(1, most)) for most in (4, 4, 5, 6))
    random = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    labels = random.normal(size=(batch, count)) * draw(st.sampled_from([0.1, 1.0, 5.0]))
    missing = random.random((batch, count)) < 0.4
    missing[:, 0] = False
    labels[missing] = NAN
    vectors = [random.normal(size=shape) for shape in ((batch, dim), (batch, count, dim), (negatives, dim))]
    return *vectors, labels


class TestLoss:
    @settings(max_examples=60, deadline=None)
    @given(
        batches(), st.sampled_from([0.0, 0.1, 0.5, 1.0]), st.sampled_from([0.3, 1.0, 4.0]), st.sampled_from([1.0, 3.0])
    )
    def test_is_what_the_plain_computation_says(self, batch, alpha, temperature, scale):
        loss = G2RLoss(None, ["a"], alpha=alpha, temperature=temperature, scale=scale)
        found = loss.compute_loss_from_embeddings(*(torch.tensor(one) for one in batch))
        expected = slow_loss(*(one.tolist() for one in batch), alpha, temperature, scale)
        assert float(found) == pytest.approx(expected, rel=1e-4, abs=1e-4)

    def test_candidates_that_are_not_there_have_no_gradient(self):
        queries, candidates, negatives = torch.randn(2, 3), torch.randn(2, 2, 3, requires_grad=True), torch.randn(4, 3)
        labels = torch.tensor([[1.0, 2.0], [1.0, NAN]])
        G2RLoss(None, ["a"], alpha=0.5).compute_loss_from_embeddings(queries, candidates, negatives, labels).backward()
        assert torch.all(candidates.grad[1, 1] == 0)
        assert torch.isfinite(candidates.grad).all()
        assert torch.any(candidates.grad[0, 1] != 0)

    def test_at_alpha_0_labels_don_t_matter(self):
        vectors = torch.randn(2, 3), torch.randn(2, 2, 3), torch.randn(4, 3)
        loss = G2RLoss(None, ["a"], alpha=0)
        one, other = (
            loss.compute_loss_from_embeddings(*vectors, torch.tensor(labels))
            for labels in ([[0.0, 0.0], [0.0, 0.0]], [[9.0, -3.0], [0.5, 2.0]])
        )
        assert one == other

    @pytest.mark.parametrize(
        ("wrong", "says"),
        [
            ({"alpha": 1.5}, "alpha"),
            ({"temperature": 0}, "temperature"),
            ({"scale": -1}, "scale"),
            ({"negatives": 0}, "negatives"),
        ],
    )
    def test_settings_that_don_t_fit_are_named(self, wrong, says):
        with pytest.raises(ValueError, match=says):
            G2RLoss(None, ["a"], **wrong)

    def test_the_model_embeds_what_is_there_and_negatives_are_no_candidates(self, bert):
        model = SentenceTransformer(bert, device="cpu")
        texts = sentences(8)
        loss = G2RLoss(model, texts, negatives=8, alpha=0.3)
        queries = [texts[0] + " " + texts[1], texts[2]]
        columns = [[texts[0], texts[1]], [texts[3], ""]]
        labels = torch.tensor([[-1.0, -2.0], [-1.5, NAN]])
        found = loss([model.preprocess(column) for column in (queries, *columns)], labels)
        embedded = {text: torch.tensor(model.encode(text)) for text in [*texts, *queries]}
        # The empty text of a missing candidate is a candidate to nobody; the other texts are the negatives.
        negatives = torch.stack([embedded[text] for text in texts if text not in {texts[0], texts[1], texts[3]}])
        candidates = torch.zeros(2, 2, negatives.shape[1])
        candidates[0, 0], candidates[1, 0], candidates[0, 1] = (embedded[texts[place]] for place in (0, 1, 3))
        expected = loss.compute_loss_from_embeddings(
            torch.stack([embedded[text] for text in queries]), candidates, negatives, labels
        )
        assert found.item() == pytest.approx(expected.item(), rel=1e-4)
        found.backward()
        assert all(parameter.grad is not None for name, parameter in model.named_parameters() if "attention" in name)

    def test_the_same_batch_draws_the_same_negatives(self, bert):
        model = SentenceTransformer(bert, device="cpu")
        loss = G2RLoss(model, sentences(60), negatives=5)
        query = model.preprocess(["river bridge"])
        drawn = [loss._negatives(query, [])[0]["input_ids"] for _ in range(2)]
        assert torch.equal(*drawn)
        other = loss._negatives(model.preprocess(["stone winter"]), [])[0]["input_ids"]
        assert other.shape != drawn[0].shape or not torch.equal(other, drawn[0])

    def test_draws_again_where_the_batch_has_all_that_was_drawn(self, bert):
        model = SentenceTransformer(bert, device="cpu")
        texts = sentences(20)
        loss = G2RLoss(model, texts, negatives=3)
        column = model.preprocess(texts[:19])
        drawn, count = loss._negatives(model.preprocess(["river bridge"]), [column])
        assert drawn["input_ids"].shape[0] == count == 1

    def test_without_another_response_it_says_so(self, bert):
        model = SentenceTransformer(bert, device="cpu")
        features = [model.preprocess([text]) for text in ("stone", "river")]
        with pytest.raises(ValueError, match="give more responses"):
            G2RLoss(model, ["river"])(features, torch.tensor([[0.0]]))


class TestTemperature:
    @settings(max_examples=30, deadline=None)
    @given(st.integers(0, 1000), st.sampled_from([0.01, 1.0, 50.0]), st.sampled_from([0.2, 0.5, 0.9]))
    def test_reaches_the_entropy_whatever_the_unit(self, seed, unit, entropy):
        random = np.random.default_rng(seed)
        scores = [unit * random.normal(size=random.integers(2, 8)) for _ in range(12)]
        temperature = entropy_temperature(scores, entropy)
        found = []
        for one in scores:
            shares = np.exp(one / temperature - (one / temperature).max())
            shares /= shares.sum()
            found.append(-np.sum(shares[shares > 0] * np.log(shares[shares > 0])) / np.log(len(one)))
        assert np.mean(found) == pytest.approx(entropy, abs=1e-3)

    def test_scores_that_say_nothing_are_refused(self):
        with pytest.raises(ValueError, match="all the same"):
            entropy_temperature([[1.0, 1.0], [2.0]], 0.5)
