"""A query and a document encoder of different depth, cut from one model and trained together."""

import json
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
from datasets import Dataset
from safetensors.numpy import load_file
from sentence_transformers import SentenceTransformer
from sentence_transformers.base.modules import Router

from benchmarks import asymmetric as benchmark
from haystack_distill.data.beir import read_beir
from haystack_distill.data.index import read_index
from haystack_distill.data.training_set import Row, write_training_set
from haystack_distill.distill import pair_training as training
from haystack_distill.distill.pair import (
    AsymmetricSettings,
    measure_pair,
    rows_of_qrels,
    rows_of_training_set,
    save_pair,
    train_asymmetric,
)
from haystack_distill.distill.pair_training import AsymmetricTraining, routed
from haystack_distill.evaluation.evaluators import ReembeddingEvaluator
from haystack_distill.evaluation.quality import measure
from haystack_distill.students.bi_encoder import BiEncoder
from haystack_distill.students.cutting import find_stack
from haystack_distill.students.layer_search import make_layered
from haystack_distill.training.trainer import METRIC
from tests.conftest import sentences
from tests.kills import kill_at_first_checkpoint
from tests.torchrun import TWO_PROCESSES, assert_same_weights

FAST = AsymmetricTraining(epochs=3, batch_size=10, learning_rate=1e-3)


@pytest.fixture
def data(beir):
    return read_beir(beir)


@pytest.fixture
def exact(monkeypatch):
    """Without bfloat16, in which sums that are taken in another order differ visibly."""
    monkeypatch.setattr(training, "bf16_is_fast", lambda _: False)


def train(teacher, data, index, work, *, query=1, document=3, how=FAST, rows=None):
    settings = AsymmetricSettings(query, document, how)
    rows = rows if rows is not None else rows_of_qrels(data)
    return train_asymmetric(teacher, rows, settings, work, index, data.queries, data.qrels["dev"], progress=False)


def test_two_plain_folders_of_the_depths_asked_for(teacher, data, index, tmp_path):
    """Loaded by sentence-transformers alone, each encodes as it did when it was trained; neither is a Router."""
    before = {name: value.clone() for name, value in teacher.model.state_dict().items()}
    pair = train(teacher, data, index, tmp_path / "work")
    save_pair(pair, tmp_path / "pair")
    text = ["river bridge stone"]
    for side, model, depth in (("query", pair.query_model, 1), ("document", pair.document_model, 3)):
        loaded = SentenceTransformer(str(tmp_path / "pair" / side), device="cpu")
        assert not any(isinstance(module, Router) for module in loaded.modules())
        assert len(find_stack(loaded)) == depth
        np.testing.assert_allclose(loaded.encode(text), model.encode(text), atol=1e-6)
    assert not np.allclose(pair.query_model.encode(text), pair.document_model.encode(text), atol=1e-3)
    assert json.loads((tmp_path / "pair" / "asymmetric.json").read_text())["rows"] == 30
    assert all((value == before[name]).all() for name, value in teacher.model.state_dict().items())
    with pytest.raises(FileExistsError):
        save_pair(pair, tmp_path / "pair")


def test_both_sides_learn(minilm, data, tmp_path):
    """Better than the untrained cuts on the rows they learn, and both sides have moved. Random weights learn little."""
    teacher = BiEncoder.load(minilm, device="cpu")
    vectors = teacher.encode_documents(list(data.documents.values()))
    index = read_index(
        [list(zip(data.documents, data.documents.values(), vectors, strict=True))], tmp_path / "view", "cosine"
    )
    data = replace(data, qrels={**data.qrels, "dev": data.qrels["train"]})
    how = replace(FAST, epochs=3, learning_rate=1e-4)
    # All layers stay on the document side: folding dropped ones into a real vocabulary takes most of a minute.
    pair = train(teacher, data, index, tmp_path / "work", document=6, how=how)
    texts = [*index.texts, *data.queries.values()]
    tokens = {token for row in teacher.model.tokenizer(texts)["input_ids"] for token in row}
    cuts = {side: tuple(layers) for side, layers in pair.summary["layers"].items()}
    untrained = replace(
        pair,
        query_model=make_layered(teacher, cuts["query"], index.texts, tokens, {}),
        document_model=make_layered(teacher, cuts["document"], index.texts),
    )
    learned, cut = (measure_pair(one, index, data.queries, data.qrels["train"]).mean() for one in (pair, untrained))
    assert learned > cut
    for trained, plain in (
        (pair.query_model, untrained.query_model),
        (pair.document_model, untrained.document_model),
    ):
        assert not np.allclose(trained.encode(["garden"]), plain.encode(["garden"]), atol=1e-3)


def test_prompts_go_to_their_sides(bert, data, index, tmp_path):
    """Saved encoders apply their own prompt: as they are loaded, they do what the teacher does with its prefixes."""
    teacher = BiEncoder.load(bert, query_prefix="garden ", document_prefix="market ", device="cpu")
    still = AsymmetricTraining(epochs=1, batch_size=10, learning_rate=1e-12)
    pair = train(teacher, data, index, tmp_path / "work", query=6, document=6, how=still)
    save_pair(pair, tmp_path / "pair")
    query, document = (SentenceTransformer(str(tmp_path / "pair" / side)) for side in ("query", "document"))
    np.testing.assert_allclose(query.encode(["stone"]), teacher.encode_queries(["stone"]), atol=1e-5)
    np.testing.assert_allclose(document.encode(["stone"]), teacher.encode_documents(["stone"]), atol=1e-5)


def test_each_column_is_trained_with_the_prompt_of_its_side(teacher, data, tmp_path):
    student = routed(teacher.model, teacher.model, {"query": "Q: ", "document": "D: "})
    rows = rows_of_qrels(data).add_column("negative", sentences(30))
    arguments = training._arguments(student, rows, tmp_path, FAST, False)
    assert arguments.prompts == {"query": "Q: ", "positive": "D: ", "negative": "D: "}


@pytest.mark.usefixtures("exact")
def test_gradient_caching_gives_the_same_encoders(teacher, data, index, tmp_path):
    plain = train(teacher, data, index, tmp_path / "plain")
    cached = train(teacher, data, index, tmp_path / "cached", how=replace(FAST, mini_batch_size=4))
    text = sentences(5, seed=4)
    np.testing.assert_allclose(plain.query_model.encode(text), cached.query_model.encode(text), atol=1e-3)
    np.testing.assert_allclose(plain.document_model.encode(text), cached.document_model.encode(text), atol=1e-3)


def test_the_dev_measure_embeds_documents_with_their_own_encoder(teacher, make_encoder, index, data):
    """Against an independent ranking: queries by one encoder, documents by another."""
    other = BiEncoder.load(make_encoder("bert", seed=7), device="cpu")
    student = routed(teacher.model, other.model, {"query": "", "document": ""})
    value = ReembeddingEvaluator(data.queries, data.qrels["dev"], index)(student)[METRIC]
    queries = teacher.encode_queries([data.queries[key] for key in data.qrels["dev"]])
    scores = dict(zip(data.qrels["dev"], queries @ other.encode_documents(index.texts).T, strict=True))
    run = {key: dict(zip(index.ids, row.tolist(), strict=True)) for key, row in scores.items()}
    assert value == pytest.approx(measure(run, data.qrels["dev"]).mean(), abs=1e-6)


def test_a_batch_that_can_not_be_filled_is_refused_before_anything_is_computed(teacher, index, data, tmp_path):
    """Sixty questions about few passages: no batch of 16 without a passage that comes twice, so no step at all."""
    words = sentences(60, seed=8)
    pairs = [
        {"query": text, "positive": f"p{number % 7}", "negative": f"p{number % 5 + 7}"}
        for number, text in enumerate(words)
    ]
    with pytest.raises(ValueError, match=r"batch_size=16 can't be filled: the 60 .* Set batch_size=4, or"):
        train(teacher, data, index, tmp_path / "work", how=replace(FAST, batch_size=16), rows=Dataset.from_list(pairs))
    assert not (tmp_path / "work").exists()
    training.check_batches(Dataset.from_list(pairs), 4)
    training.check_batches(Dataset.from_list(pairs[:3]), 16)


def test_rows_of_teacher_scores(tmp_path):
    """The teacher's first is the positive; the negative is the retriever's highest of the teacher's lower half."""
    common = {"answers": [], "document_ids": list("abcd"), "documents": list("ABCD"), "retriever_scores": [4, 3, 2, 1]}
    rows = [
        Row("1", "one", **common, teacher_scores=[-3.0, -9.0, -1.0, -5.0]),
        Row("2", "equal", **common, teacher_scores=[1.0] * 4),
        Row("3", "set aside", **common),
    ]
    training_set = write_training_set(tmp_path / "set", rows, teacher={"model": "m"})
    assert list(rows_of_training_set(training_set)) == [{"query": "one", "positive": "C", "negative": "B"}]
    assert list(rows_of_training_set(training_set, negatives=False)) == [{"query": "one", "positive": "C"}]
    nothing = write_training_set(tmp_path / "nothing", rows[1:], teacher={"model": "m"})
    with pytest.raises(ValueError, match="no query whose passages differ"):
        rows_of_training_set(nothing)


def test_hard_negatives_are_trained_on(teacher, data, index, tmp_path):
    rows = rows_of_qrels(data)
    rows = rows.add_column("negative", sentences(len(rows), seed=11))
    pair = train(teacher, data, index, tmp_path / "work", rows=rows, how=replace(FAST, epochs=1))
    assert pair.summary["rows"] == len(rows)


def test_what_does_not_fit_is_refused(teacher, data, index, tmp_path):
    with pytest.raises(ValueError, match="query_layers=0 does not fit.*KaleAligner"):
        train(teacher, data, index, tmp_path / "work", query=0)
    with pytest.raises(ValueError, match="document_layers=7 does not fit"):
        train(teacher, data, index, tmp_path / "work", document=7)
    with pytest.raises(ValueError, match="columns anchor, positive; needed: query"):
        train(teacher, data, index, tmp_path / "work", rows=Dataset.from_dict({"anchor": ["a"], "positive": ["b"]}))
    with pytest.raises(ValueError, match="'test2' has no judgments"):
        rows_of_qrels(data, "test2")
    train(teacher, data, index, tmp_path / "work", how=replace(FAST, epochs=1))
    with pytest.raises(ValueError, match="had other settings"):
        train(teacher, data, index, tmp_path / "work", document=2)


SCRIPT = """
import sys, time
from pathlib import Path
from haystack_distill.distill.pair import AsymmetricSettings, rows_of_qrels, save_pair, train_asymmetric
from haystack_distill.data.beir import read_beir
from haystack_distill.data.index import open_index
from haystack_distill.students.bi_encoder import BiEncoder
from haystack_distill.distill import pair_training as asymmetric
index, encoder, beir, output, slow, processes, size = sys.argv[1:]
if slow == "slow":  # gives the test time to kill between two checkpoints
    fast = asymmetric.MultipleNegativesRankingLoss.forward
    asymmetric.MultipleNegativesRankingLoss.forward = lambda *a, **k: (time.sleep(0.2), fast(*a, **k))[1]
asymmetric.bf16_is_fast = lambda _: False
data = read_beir(beir)
training = asymmetric.AsymmetricTraining(epochs=3, batch_size=int(size), learning_rate=1e-3, seed=3)
settings, teacher = AsymmetricSettings(1, 2, training), BiEncoder.load(encoder, device="cpu")
rows, work = rows_of_qrels(data), Path(output + ".run")
dev = data.queries, data.qrels["dev"]
pair = train_asymmetric(teacher, rows, settings, work, open_index(index), *dev, progress=False)
if int(processes) == 1 or __import__("torch").distributed.get_rank() == 0:
    save_pair(pair, output)
"""


SAME = AsymmetricTraining(epochs=3, batch_size=10, learning_rate=1e-3, seed=3)


@pytest.mark.usefixtures("exact")
def test_a_killed_run_goes_on_and_ends_with_the_same_encoders(teacher, data, index, bert, beir, tmp_path):
    def run(speed):
        arguments = [tmp_path / "view", bert, beir, tmp_path / "broken", speed, 1, 10]
        return subprocess.Popen([sys.executable, "-c", SCRIPT, *map(str, arguments)])

    broken = run("slow")
    kill_at_first_checkpoint(broken, tmp_path / "broken.run")
    assert not (tmp_path / "broken").exists()
    assert run("fast").wait() == 0
    save_pair(train(teacher, data, index, tmp_path / "work", query=1, document=2, how=SAME), tmp_path / "unbroken")
    for side in ("query", "document"):
        weights = [load_file(tmp_path / name / side / "model.safetensors") for name in ("broken", "unbroken")]
        assert all(np.array_equal(weights[0][key], weights[1][key]) for key in weights[0])


@pytest.mark.usefixtures("exact")
def test_two_processes_train_the_same_encoders_as_one(teacher, data, index, bert, beir, tmp_path):
    """torchrun with gloo: the batch is split and documents are gathered, so it is the same optimisation."""
    script = tmp_path / "train.py"
    script.write_text(SCRIPT)
    arguments = [tmp_path / "view", bert, beir, tmp_path / "two", "fast", 2, 10]
    subprocess.run([*TWO_PROCESSES, str(script), *map(str, arguments)], check=True)
    save_pair(train(teacher, data, index, tmp_path / "work", query=1, document=2, how=SAME), tmp_path / "one")
    for side in ("query", "document"):
        one, two = (load_file(tmp_path / name / side / "model.safetensors") for name in ("one", "two"))
        assert_same_weights(one, two, rtol=1e-3, atol=1e-4)


def test_the_benchmark_runs_and_goes_on_where_it_was(beir, bert, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    rows_file = tmp_path / "rows.json"
    asked = {"data": beir, "json": rows_file, "depths": "2,1", "teacher": bert, "epochs": None}
    benchmark.main(**asked, quick=True)
    rows = json.loads(rows_file.read_text())
    assert [(row["query_layers"], row["document_layers"]) for row in rows] == [(2, 2), (2, 1), (1, 2), (1, 1)]
    assert all(0 <= row["ci_low"] <= row["ndcg@10"] <= row["ci_high"] <= 100 for row in rows)
    monkeypatch.setattr(benchmark, "row_of", lambda *_: pytest.fail("a finished row was run again"))
    benchmark.main(**asked, quick=True)
