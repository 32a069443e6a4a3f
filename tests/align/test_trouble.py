"""What users get wrong, or have little of, when they align: found out before the work, and mended without loss."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from haystack.document_stores.in_memory import InMemoryDocumentStore
from haystack_integrations.components.embedders.sentence_transformers import SentenceTransformersTextEmbedder
from sentence_transformers import SentenceTransformer

from haystack_distill import KaleAligner, KaleQueryEncoder, RetrievalEvaluator
from haystack_distill.align.job import align
from haystack_distill.align.proof import align_and_prove
from haystack_distill.align.settings import KaleSettings
from haystack_distill.align.training import TrainingSettings
from haystack_distill.data.index import IndexView, read_index
from haystack_distill.evaluation.held_out import Queries, given_queries, unseen
from haystack_distill.students.bi_encoder import BiEncoder
from haystack_distill.students.cutting import cut
from haystack_integrations.components.distill import kale_aligner
from haystack_integrations.components.distill.retrieval_evaluator import RESERVED
from tests.conftest import sentences, write_beir


@pytest.fixture
def aligner(store, bert, tmp_path):
    def made(**changes):
        parameters = {"document_store": store, "teacher": bert, "layers": 1, "epochs": 1, "progress_bar": False}
        return KaleAligner(**{**parameters, "output": str(tmp_path / "student"), **changes})

    return made


def test_a_path_that_is_missing_is_known_before_anything_is_read(aligner, monkeypatch):
    monkeypatch.setattr(kale_aligner, "index_of", lambda *_: pytest.fail("the store was read"))
    for paths in ({"queries": "nowhere"}, {"test": "nowhere"}):
        with pytest.raises(FileNotFoundError, match="nowhere is missing: give a BEIR folder"):
            aligner().run(**paths)


def test_weights_written_by_hand_in_yaml_are_numbers_to_the_end(aligner):
    """YAML 1.1 reads 1e-5 as a string, and the card prints the weights once all is done."""
    loss = yaml.safe_load("{mse: 1e-5, index_ranking: 2}")
    assert loss["mse"] == "1e-5"
    result = aligner(loss=loss).run()
    assert result["metrics"]["provenance"]["settings"]["loss"] == {"mse": 1e-5, "index_ranking": 2.0}
    assert "1e-05 x mse" in (Path(result["model_path"]) / "README.md").read_text()


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"layers": 7}, "the encoder has 6 layers"),
        ({"keep": [9]}, "the layers 0 to 5"),
        ({"temperature": 0}, "temperature must be above 0"),
        ({"loss": {"mse": -1}}, "must be positive"),
    ],
)
def test_a_setting_that_does_not_fit_does_not_block_the_one_that_does(wrong, message, aligner, tmp_path):
    with pytest.raises(ValueError, match=message):
        aligner(**wrong).run()
    assert not (tmp_path / ".student.run" / "run.json").exists()
    aligner().run()
    assert (tmp_path / "student" / "metrics.json").is_file()


def test_a_run_that_was_killed_before_its_first_checkpoint_can_be_run_otherwise(index, teacher, tmp_path, monkeypatch):
    """Nothing could be mixed up; what it found of its layers does not count any more."""
    fast = TrainingSettings(epochs=1)

    def killed(*_, **__):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("haystack_distill.align.job.train", killed)
        with pytest.raises(KeyboardInterrupt):
            align(index, teacher, KaleSettings(layers=2, training=fast), tmp_path / "run", test=(), progress=False)
    assert len(json.loads((tmp_path / "run" / "layers.json").read_text())["kept"]) == 2
    aligned = align(index, teacher, KaleSettings(layers=1, training=fast), tmp_path / "run", test=(), progress=False)
    assert len(aligned.kept_layers) == 1
    with pytest.raises(ValueError, match="had other settings"):
        align(index, teacher, KaleSettings(layers=2, training=fast), tmp_path / "run", test=(), progress=False)


def test_another_encoder_after_a_killed_run_is_its_own_teacher(index, teacher, make_encoder, tmp_path, monkeypatch):
    """It has the same dimensions and no prompt either; only its index tells it from the one before."""
    settings = KaleSettings(layers=0, passage_weight=0, training=TrainingSettings(epochs=1))
    other = BiEncoder.load(make_encoder("bert", seed=9), device="cpu")
    vectors = other.encode_documents(index.texts)
    elsewhere = read_index([list(zip(index.ids, index.texts, vectors, strict=True))], tmp_path / "other", "cosine")
    learnt = []

    def killed(_, texts, vectors, *__, **___):
        learnt.append((texts, vectors))
        raise KeyboardInterrupt

    monkeypatch.setattr("haystack_distill.align.job.train", killed)
    for encoder, its_index in ((teacher, index), (other, elsewhere)):
        with pytest.raises(KeyboardInterrupt):
            align(its_index, encoder, settings, tmp_path / "run", test=(), progress=False)
        texts, targets = learnt[-1]
        np.testing.assert_allclose(targets, encoder.encode_queries(texts), atol=0.02)


def test_a_continued_run_keeps_the_layers_that_were_found(index, teacher, tmp_path, monkeypatch):
    """Its checkpoints fit these layers and no others."""
    settings = KaleSettings(layers=2, training=TrainingSettings(epochs=1))
    before = align(index, teacher, settings, tmp_path / "run", test=(), progress=False)
    monkeypatch.setattr("haystack_distill.align.layers.LayerSearch", None)
    after = align(index, teacher, settings, tmp_path / "run", test=(), progress=False)
    assert (after.kept_layers, after.searched) == (before.kept_layers, before.searched)


def test_dev_judgments_of_other_documents_are_refused(aligner, passages, tmp_path):
    """Otherwise every student has a dev nDCG@10 of 0, and the choice among them is none."""
    other = {f"other-{key}": text for key, text in passages.items()}
    queries = {f"q{number}": text for number, text in enumerate(sentences(20, seed=4))}
    qrels = {
        "train": {f"q{n}": f"other-d{n}" for n in range(10)},
        "dev": {f"q{n}": f"other-d{n}" for n in range(10, 20)},
    }
    beir = write_beir(tmp_path / "other", other, queries, qrels)
    with pytest.raises(
        ValueError, match="dev split of the queries judges documents that the index lacks \\('other-d10'"
    ):
        aligner().run(queries=str(beir))
    assert not (tmp_path / ".student.run" / "run.json").exists()


@pytest.mark.parametrize(("count", "held_out"), [(15, 0), (499, 0), (500, 50)])
def test_few_queries_are_all_trained_on(count, held_out, tmp_path):
    """A dev set of two queries tells nothing apart; sentences of the index do."""
    file = tmp_path / "log.jsonl"
    texts = [f"{text} {number}" for number, text in enumerate(sentences(count))]
    file.write_text("\n".join(json.dumps({"_id": str(number), "text": text}) for number, text in enumerate(texts)))
    found = given_queries(str(file), 0)
    assert (len(found.train), len(found.dev)) == (count - held_out, held_out)
    assert not set(found.train) & set(found.dev.values())


def test_a_log_of_fifteen_queries(aligner, tmp_path):
    file = tmp_path / "log.jsonl"
    file.write_text(
        "\n".join(json.dumps({"_id": str(n), "text": text}) for n, text in enumerate(sentences(15, seed=4)))
    )
    metrics = aligner().run(queries=str(file))["metrics"]
    assert metrics["provenance"]["trained_on"]["queries"] == 15


def test_what_is_judged_is_not_learnt(beir):
    """The same question may be asked again, under another id, in the test split."""
    assert unseen(["A b", "c", " C "], ["a B ", "d"]) == ["c", " C "]
    lines = [json.loads(line) for line in (beir / "queries.jsonl").read_text().splitlines()]
    assert len(given_queries(str(beir), 0).train) == 30
    lines[0]["text"], lines[1]["text"] = lines[50]["text"].upper(), lines[35]["text"]
    (beir / "queries.jsonl").write_text("\n".join(map(json.dumps, lines)))
    left = given_queries(str(beir), 0)
    assert len(left.train) == 28
    assert len(left.dev) == 10


def test_queries_of_another_test_folder_are_not_learnt(bert, index, teacher, passages, beir, tmp_path):
    asked = {f"t{number}": passages[f"d{number}"].split(". ")[0] for number in range(5)}  # train queries of `beir`
    test = write_beir(tmp_path / "test", passages, asked, {"test": {f"t{n}": f"d{n}" for n in range(5)}})
    settings = KaleSettings(layers=0, training=TrainingSettings(epochs=1))
    figures = align_and_prove(
        index, teacher, bert, settings, tmp_path / "student", tmp_path / "run", str(beir), str(test), progress=False
    )
    assert figures["provenance"]["trained_on"]["queries"] == 25


def test_how_much_was_left_out_is_written_down(aligner, beir):
    """Queries of this folder are sentences of the index, which is aligned on; those of dev and test are not learnt."""
    result = aligner(layers=0).run(queries=str(beir), test=str(beir))
    left_out = result["metrics"]["left_out"]
    assert left_out["train"] == left_out["dev"] == 0
    assert 15 < left_out["index_texts"] <= 30, "some of the ten and twenty were held out of the text before"
    assert f"{left_out['index_texts']} of index texts" in (Path(result["model_path"]) / "README.md").read_text()


def test_of_the_text_of_an_index_nothing_is_learnt_that_test_asks(index, teacher, tmp_path, monkeypatch):
    learnt, selected = [], []

    def killed(_, texts, __, ___, evaluator, *____, **_____):
        learnt.extend(texts)
        selected.extend(evaluator.queries)
        raise KeyboardInterrupt

    monkeypatch.setattr("haystack_distill.align.job.train", killed)
    asked = [text.split(". ")[0].upper() for text in index.texts]
    with pytest.raises(KeyboardInterrupt):
        align(index, teacher, KaleSettings(layers=0), tmp_path / "run", test=asked, progress=False)
    assert learnt
    assert selected
    assert not {text.rstrip(".").upper() for text in [*learnt, *selected]} & set(asked)


def test_a_run_that_was_killed_while_it_exported_makes_what_is_missing(aligner, monkeypatch, tmp_path):
    made = []

    def export(model, backend, precision, _):
        made.append(f"{backend}-{precision}")
        if made == ["onnx-fp32", "torch-int8"]:
            raise KeyboardInterrupt
        (Path(model) / made[-1]).mkdir()

    monkeypatch.setattr("haystack_distill.serving.export.export", export)
    monkeypatch.setattr("haystack_distill.serving.export.check_can_export", lambda *_: None)
    kale = aligner(export=["onnx-fp32", "torch-int8"])
    with pytest.raises(KeyboardInterrupt):
        kale.run()
    monkeypatch.setattr("haystack_distill.align.proof.train_on", None)
    result = kale.run()
    assert made == ["onnx-fp32", "torch-int8", "torch-int8"]
    assert result["metrics"] == json.loads((tmp_path / "student" / "metrics.json").read_text())
    assert not (tmp_path / ".student.run").exists()
    with pytest.raises(FileExistsError):
        kale.run()


def test_too_little_text_for_a_proof_is_said_before_training(bert, teacher, tmp_path, monkeypatch):
    monkeypatch.setattr("haystack_distill.align.proof.train_on", None)
    texts = sentences(30, seed=5)
    vectors = teacher.encode_documents(texts)
    pages = [[(str(number), text, vector) for number, (text, vector) in enumerate(zip(texts, vectors, strict=True))]]
    index = read_index(pages, tmp_path / "view", "cosine")
    with pytest.raises(ValueError, match="30 sentences, too few to hold some out for the proof: give `test`"):
        align_and_prove(index, teacher, bert, KaleSettings(), tmp_path / "student", tmp_path / "run", None, None)


def test_an_index_whose_end_was_made_by_another_encoder(index, teacher, make_encoder):
    """A model that was changed halfway: the first documents are right."""
    other = BiEncoder.load(make_encoder("bert", seed=11), device="cpu")
    vectors = np.array(index.vectors)
    vectors[40:] = other.encode_documents(index.texts[40:])
    with pytest.raises(ValueError, match="5 of 15 stored texts embedded again differ.*If two models made it"):
        teacher.check_belongs_to(replace(index, vectors=vectors))


def test_an_encoder_that_cannot_be_cut(minilm_table, tmp_path):
    encoder = SentenceTransformer(minilm_table, device="cpu")
    store = InMemoryDocumentStore(embedding_similarity_function="cosine")
    from haystack import Document

    store.write_documents([Document(content=t, embedding=encoder.encode(t).tolist()) for t in sentences(50)])
    aligner = KaleAligner(document_store=store, teacher=minilm_table, output=str(tmp_path / "o"), progress_bar=False)
    with pytest.raises(ValueError, match="can't be cut: no list of layers"):
        aligner.run()


def test_vectors_of_another_dimension(store, minilm, tmp_path):
    with pytest.raises(ValueError, match="32 dimensions and the encoder makes 384"):
        KaleAligner(document_store=store, teacher=minilm, output=str(tmp_path / "o"), progress_bar=False).run()


def test_an_encoder_in_half_precision_is_trained_in_full(bert):
    """Small steps vanish in bfloat16 weights."""
    half = BiEncoder.load(bert, device="cpu", model_kwargs={"dtype": torch.bfloat16})
    assert next(half.model.parameters()).dtype == torch.bfloat16
    assert {weight.dtype for weight in cut(half, (0, 5)).parameters()} == {torch.float32}
    assert next(half.model.parameters()).dtype == torch.bfloat16, "the teacher was changed"


@pytest.mark.parametrize("layers", [0, 1])
def test_prefix_truncation_and_normalisation_of_the_teacher_are_the_students(layers, make_encoder, passages, tmp_path):
    """From alignment to serving, with texts longer than the encoder reads: the stock embedder makes the same vector."""
    model = make_encoder("bert", normalize=False)
    wanted = {"query_prefix": "river ", "document_prefix": "stone ", "normalize": True, "dim": 16}
    teacher = BiEncoder.load(model, device="cpu", **wanted)
    vectors = teacher.encode_documents(list(passages.values()))
    index = read_index([list(zip(passages, passages.values(), vectors, strict=True))], tmp_path / "view", "cosine")
    settings = KaleSettings(layers=layers, training=TrainingSettings(epochs=8, batch_size=16))
    queries = Queries(sentences(40, seed=4))
    aligned = align(index, teacher, settings, tmp_path / "run", queries, test=(), progress=False)
    aligned.student.save(str(tmp_path / "student"), create_model_card=False)
    long = " ".join(sentences(40, seed=6))
    stock = SentenceTransformersTextEmbedder(model=str(tmp_path / "student"), progress_bar=False)
    stock.warm_up()
    for text in ("river bridge", long):
        ours = np.array(KaleQueryEncoder(model=str(tmp_path / "student")).run(text=text)["embedding"])
        assert ours.shape == (16,)
        assert np.linalg.norm(ours) == pytest.approx(1, abs=1e-5)
        assert np.allclose(ours, stock.run(text=text)["embedding"], atol=1e-6)
    # The prefix was in what the student learnt: its vectors are nearer to the teacher's with it than without.
    dev = sentences(40, seed=9)
    without = replace(teacher, query_prefix="")
    student = aligned.student.encode(dev)
    assert np.mean(student * teacher.encode_queries(dev)) > np.mean(student * without.encode_queries(dev))


def test_the_card_says_what_the_student_is(aligner, bert, beir):
    result = aligner().run(queries=str(beir), test=str(beir))
    card = (Path(result["model_path"]) / "README.md").read_text()
    made = result["metrics"]["provenance"]
    for fact in (
        f"Teacher: {bert}",
        f"Layers kept: {made['kept_layers'][0]}",
        f"fingerprint {made['index']['fingerprint'][:16]}",
        "60 documents, 32 dimensions, cosine",
        "30 queries and",
        f"{100 * result['metrics']['share_of_teacher']:.1f} % of the teacher's",
        "moved by 0.2 toward the passages",
    ):
        assert fact in card, fact


def test_a_student_that_training_made_worse_stays_untrained_and_says_so(aligner, bert, store, beir, tmp_path):
    result = aligner(learning_rate=10.0, embedding_learning_rate=10.0).run()
    assert result["metrics"]["provenance"]["stays_untrained"]
    folder = Path(result["model_path"])
    assert "worse on dev than untrained" in (folder / "README.md").read_text()
    # As a student of an earlier version says it: not at all, and its sentences were not moved.
    for file in (folder / "metrics.json", folder / "haystack_distill.json"):
        figures = json.loads(file.read_text())
        made = figures.get("provenance", figures)
        del made["stays_untrained"], made["settings"]["passage_weight"]
        file.write_text(json.dumps(figures))
    evaluation = tmp_path / "evaluation"
    arguments = {"document_store": store, "teacher": bert, "output": str(evaluation)}
    found = RetrievalEvaluator(students={"one": str(folder)}, **arguments).run(queries=str(beir))["metrics"]
    assert not found.keys() - RESERVED - {"one"}
    with pytest.raises(ValueError, match="none of them hybrids, queries, recovery_advice, seed"):
        RetrievalEvaluator(students={"queries": str(folder)}, **arguments)


def test_a_card_does_not_speak_of_passages_that_were_left_out(aligner):
    card = (Path(aligner(passage_weight=0).run()["model_path"]) / "README.md").read_text()
    assert "Targets: the teacher's vectors\n" in card


def test_an_index_without_texts_is_not_compared(index, teacher):
    view = IndexView(index.ids, [""] * len(index), index.vectors, "cosine", "")
    with pytest.raises(ValueError, match="No document in the store has a text"):
        teacher.check_belongs_to(view)
