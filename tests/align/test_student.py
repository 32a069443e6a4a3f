"""Another encoder that searches an index which it did not make."""

import json
from pathlib import Path

import numpy as np
import pytest
from sklearn.linear_model import Ridge

from haystack_distill import KaleAligner, KaleQueryEncoder
from haystack_distill.align.settings import KaleSettings
from haystack_distill.students.bi_encoder import BiEncoder
from haystack_distill.students.mapped import map_of, ridge_maps, set_map, with_map
from tests.conftest import sentences


@pytest.fixture
def aligner(store, bert, tmp_path):
    def made(student, **changes):
        return KaleAligner(
            document_store=store,
            teacher=bert,
            student=student,
            output=str(tmp_path / "student"),
            progress_bar=False,
            **changes,
        )

    return made


def test_maps_are_those_of_scikit_learn():
    random = np.random.default_rng(0)
    inputs, targets = random.normal(3, 2, (200, 12)), random.normal(-1, 1, (200, 5))
    maps = ridge_maps(inputs.astype(np.float32), targets.astype(np.float32), (1.0, 0.01))
    for penalty, (weight, bias) in maps.items():
        alpha = penalty * len(inputs) * inputs.var(axis=0).mean()
        theirs = Ridge(alpha).fit(inputs, targets)
        np.testing.assert_allclose(weight, theirs.coef_.T, atol=1e-5)
        np.testing.assert_allclose(bias, theirs.intercept_, atol=1e-4)


def test_a_map_is_applied_behind_the_encoder(minilm, teacher):
    encoder = BiEncoder.load(minilm, device="cpu")
    student, random, texts = with_map(encoder, teacher), np.random.default_rng(0), sentences(5)
    weight, bias = random.normal(size=(384, 32)).astype(np.float32), random.normal(size=32).astype(np.float32)
    set_map(student, weight, bias)
    expected = encoder.encode_queries(texts) @ weight + bias
    expected /= np.linalg.norm(expected, axis=1, keepdims=True)  # as the vectors of the index
    np.testing.assert_allclose(student.encode(texts), expected, atol=1e-5)
    assert encoder.model.get_embedding_dimension() == 384


def test_the_encoder_of_the_index_is_found_again(aligner, bert):
    """The map of an encoder to its own vectors changes nothing but what the passages add."""
    metrics = aligner(bert, passage_weight=0).run()["metrics"]
    assert metrics["share_of_teacher"] == pytest.approx(1, abs=0.02)
    assert "cut_only" not in metrics


@pytest.mark.parametrize("fit", [None, "trained"])
def test_a_wider_encoder_is_written_and_serves(aligner, minilm, fit):
    folder = Path(aligner(minilm, fit=fit, epochs=1, max_texts=60).run()["model_path"])
    provenance = json.loads((folder / "metrics.json").read_text())["provenance"]
    assert provenance["student"] == minilm
    assert len(provenance["ridge"]["dev_ndcg@10"]) == 4
    assert bool(provenance["history"]) == (fit == "trained")
    card = (folder / "README.md").read_text()
    assert "and a linear map" in card
    assert len(KaleQueryEncoder(model=str(folder)).run(text="river bridge")["embedding"]) == 32


def test_a_prefix_of_its_own(aligner, bert):
    folder = aligner(bert, student_prefix="query: ").run()["model_path"]
    config = json.loads((Path(folder) / "config_sentence_transformers.json").read_text())
    assert config["prompts"]["query"] == "query: "


@pytest.mark.parametrize("wrong", [{"layers": 2}, {"keep": (0,)}, {"layers": 0}])
def test_nothing_is_cut_of_it(wrong):
    with pytest.raises(ValueError, match="All layers of the student other stay: leave `layers` and `keep` out"):
        KaleSettings(student="other", **wrong)


def test_a_student_that_is_nowhere(aligner):
    with pytest.raises((OSError, ValueError), match="nowhere"):
        aligner("./nowhere").run()


def test_the_map_is_linear_in_the_saved_model(aligner, minilm):
    from sentence_transformers import SentenceTransformer

    folder = aligner(minilm, max_texts=60).run()["model_path"]
    linear = map_of(SentenceTransformer(folder, device="cpu"))
    assert linear.weight.shape == (32, 384)
    assert linear.bias.abs().sum() > 0
