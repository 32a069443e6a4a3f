import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from haystack import Document, component
from haystack.components.retrievers.in_memory import InMemoryBM25Retriever, InMemoryEmbeddingRetriever
from haystack.document_stores.in_memory import InMemoryDocumentStore
from haystack_integrations.components.embedders.sentence_transformers import SentenceTransformersDocumentEmbedder
from huggingface_hub import ModelCard
from sentence_transformers import SentenceTransformer
from typer.testing import CliRunner

from haystack_distill import (
    DistillationLoop,
    DistilledRetriever,
    KaleQueryEncoder,
    ReaderFineTuner,
    TeacherLikelihoodScorer,
)
from haystack_distill.cli import app
from haystack_distill.data.training_set import TrainingSet
from haystack_distill.students.bi_encoder import BiEncoder
from haystack_integrations.components.distill import distillation_round
from haystack_integrations.components.distill.distillation_round import Round
from tests.conftest import write_beir
from tests.torchrun import TWO_PROCESSES


@component
class Overlap:
    """A ranker that counts common words: a teacher that knows what random models don't."""

    asked = 0

    @component.output_types(documents=list[Document])
    def run(self, query: str, documents: list[Document]) -> dict[str, list[Document]]:
        Overlap.asked += 1
        words = set(query.strip(".").split())
        scored = [(len(words & set((one.content or "").replace(".", "").split())), one) for one in documents]
        ranked = sorted(scored, key=lambda pair: -pair[0])
        return {"documents": [Document(id=one.id, content=one.content, score=float(score)) for score, one in ranked]}


@pytest.fixture
def questions(passages, tmp_path):
    """The first sentence of each document under a name that no split has."""
    lines = [{"_id": f"t{n}", "text": text.split(". ")[0]} for n, text in enumerate(passages.values())]
    file = tmp_path / "questions.jsonl"
    file.write_text("\n".join(json.dumps(line) for line in lines) + "\n")
    return str(file)


def make_loop(store, model, tmp_path, **settings):
    training = {"epochs": 4, "batch_size": 16, "learning_rate": 2e-3, **settings.pop("distiller", {})}
    return DistillationLoop(
        retriever=InMemoryEmbeddingRetriever(store),
        model=model,
        scorer=settings.pop("scorer", Overlap()),
        output=str(tmp_path / "loop"),
        distiller=training,
        progress_bar=False,
        **settings,
    )


@pytest.fixture
def real_store(minilm, passages):
    """The index that MiniLM makes."""
    vectors = BiEncoder.load(minilm, device="cpu").encode_documents(list(passages.values()))
    store = InMemoryDocumentStore(embedding_similarity_function="cosine")
    rows = zip(passages.items(), vectors, strict=True)
    store.write_documents([Document(id=key, content=text, embedding=row.tolist()) for (key, text), row in rows])
    return store


def test_rounds_are_folders_and_the_best_is_recommended(minilm_table, real_store, passages, tmp_path):
    """Of two words the table finds the document half of the time, and the teacher always."""
    store = real_store
    asked = {f"q{number}": " ".join(text.split()[:2]) for number, text in enumerate(passages.values())}
    qrels = {
        split: {f"q{n}": f"d{n}" for n in numbers} for split, numbers in (("dev", range(30)), ("test", range(30, 60)))
    }
    # To a table the same words in another order are what it is trained on; judged queries themselves never are.
    turned = {key: " ".join(reversed(text.split())) for key, text in asked.items()}
    judged = write_beir(tmp_path / "judged", passages, turned, qrels)
    questions = tmp_path / "questions.jsonl"
    lines = [json.dumps({"_id": f"t{number}", "text": text}) for number, text in enumerate(asked.values())]
    questions.write_text("\n".join(lines) + "\n")
    settings = {"learning_rate": 1e-2, "epochs": 10, "teacher_temperature": 0.3}
    loop = make_loop(store, minilm_table, tmp_path, rounds=2, top_k=30, distiller=settings)
    result = loop.run(queries=str(questions), judged=str(judged))
    kept = json.loads((tmp_path / "loop" / "rounds.json").read_text())
    assert kept == {"recommended": result["model_path"], "rounds": result["rounds"]}
    first, *others = result["rounds"]
    assert first["recommended"] == "student"
    assert first["student"] > first["untouched"]
    for second in others:  # it starts where the first ended
        assert second["before"] == pytest.approx(first["after"])
    retriever = DistilledRetriever(
        retriever=InMemoryEmbeddingRetriever(store), query_encoder=KaleQueryEncoder(model=result["model_path"])
    )
    assert retriever.run(query="river bridge", top_k=3)["documents"]


def test_what_is_done_is_not_done_again(store, bert, questions, tmp_path, monkeypatch):
    def killed(*_, **__):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(distillation_round.RetrieverDistiller, "run", killed)
        with pytest.raises(KeyboardInterrupt):
            make_loop(store, bert, tmp_path, rounds=1).run(queries=questions)
    asked = Overlap.asked
    result = make_loop(store, bert, tmp_path, rounds=1).run(queries=questions)
    assert Overlap.asked == asked, "labels were made before"
    assert make_loop(store, bert, tmp_path, rounds=1).run(queries=questions)["rounds"] == result["rounds"]
    assert Overlap.asked == asked


def test_other_settings_need_another_folder(store, bert, questions, tmp_path):
    make_loop(store, bert, tmp_path, rounds=1, distiller={"epochs": 1}).run(queries=questions)
    with pytest.raises(ValueError, match="had other distiller"):
        make_loop(store, bert, tmp_path, rounds=1, distiller={"epochs": 2}).run(queries=questions)
    with pytest.raises(ValueError, match="had other settings"):
        make_loop(store, bert, tmp_path, rounds=1, top_k=3, distiller={"epochs": 1}).run(queries=questions)


def test_a_wrong_setting_of_the_training_is_found_out_before_anything_is_labelled(store, bert, questions, tmp_path):
    asked = Overlap.asked
    for wrong in ({"loss": {"klx": 1}}, {"target_entropy": 3}, {"passages": 1}, {"teacher_temperature": -1}):
        with pytest.raises(ValueError, match="klx|target_entropy|passages=1|teacher_temperature"):
            make_loop(store, bert, tmp_path, rounds=1, distiller=wrong).run(queries=questions)
    assert Overlap.asked == asked
    assert not (tmp_path / "loop").exists()


def test_training_may_be_changed_until_a_round_is_done(store, bert, questions, tmp_path, monkeypatch):
    """A rate that diverged is lowered, and the labels stay."""

    def diverged(*_, **__):
        msg = "lower the learning rate"
        raise ValueError(msg)

    with monkeypatch.context() as patch:
        patch.setattr(distillation_round.RetrieverDistiller, "run", diverged)
        with pytest.raises(ValueError, match="lower the learning rate"):
            make_loop(store, bert, tmp_path, rounds=1, distiller={"learning_rate": 9.0}).run(queries=questions)
    asked = Overlap.asked
    settings = {"learning_rate": "1e-5", "epochs": 1, "loss": {"listwise": "1e-1"}}
    result = make_loop(store, bert, tmp_path, rounds=1, distiller=settings).run(queries=questions)
    assert Overlap.asked == asked, "labels were made before"
    made = result["metrics"]["provenance"]["settings"]
    assert (made["loss"], made["training"]["learning_rate"]) == ({"listwise": 0.1}, 1e-5)


def test_the_first_round_may_search_by_words(store, passages, bert, questions, tmp_path):
    words = InMemoryDocumentStore()
    words.write_documents([Document(id=key, content=text) for key, text in passages.items()])
    loop = make_loop(
        store, bert, tmp_path, rounds=1, first_retriever=InMemoryBM25Retriever(words), distiller={"epochs": 1}
    )
    loop.run(queries=questions)
    manifest = TrainingSet.open(tmp_path / "loop" / "round-1" / "training_set").manifest
    assert (manifest["retriever"], manifest["similarity"]) == ("InMemoryBM25Retriever", "reciprocal_rank")


def test_documents_that_moved_are_embedded_again_between_rounds(store, make_encoder, bert, tmp_path):
    other = make_encoder("bert", seed=5)
    loop = make_loop(store, bert, tmp_path, distiller={"update": "both"})
    (tmp_path / "loop" / "round-2").mkdir(parents=True)
    settings = loop._settings()[1]
    moved = Round(settings, tmp_path / "loop", 2)._index(other)
    encoder = SentenceTransformer(other, device="cpu")
    for document in moved.filter_documents()[:5]:
        assert np.allclose(document.embedding, encoder.encode_document(document.content), atol=1e-5)
    assert Round(settings, tmp_path / "loop", 1)._index(bert) is store


def test_a_second_round_goes_on_after_a_kill(store, bert, make_encoder, questions, tmp_path, monkeypatch):
    """Killed while documents are embedded again, and in training: the copy of the index is made anew."""
    other, kills = make_encoder("bert", seed=5), []

    def killed(*_, **__):
        kills.append(list((tmp_path / "loop" / "round-2").glob("index-*")))
        raise KeyboardInterrupt

    def trained(distiller, **_):
        if "round-2" in distiller.output and len(kills) < 2:
            killed()
        shutil.copytree(other, distiller.output)
        figures = {"recommended": "student", "dev": {"after": 0.2}, "training_seconds": 0.0}
        figures |= {name: {"ndcg@10": 0.5} for name in ("untouched", "student")}
        (Path(distiller.output) / "metrics.json").write_text(json.dumps(figures))

    monkeypatch.setattr(distillation_round.RetrieverDistiller, "run", trained)
    loop = make_loop(store, bert, tmp_path, top_k=3, distiller={"update": "both"})
    with monkeypatch.context() as patch:
        patch.setattr(SentenceTransformer, "encode_document", killed)
        with pytest.raises(KeyboardInterrupt):
            loop.run(queries=questions)
    assert len(kills[0]) == 1, "it was not killed beside a copy of the index"
    with pytest.raises(KeyboardInterrupt):
        loop.run(queries=questions)
    asked = Overlap.asked
    assert [row["round"] for row in loop.run(queries=questions)["rounds"]] == [1, 2]
    assert Overlap.asked == asked, "labels were made before"
    assert not list((tmp_path / "loop").glob("round-*/index-*")), "a copy of the index was left behind"


def test_the_document_embedder_of_the_index_is_the_model(minilm, real_store, questions, tmp_path, monkeypatch):
    """Its settings are those of every round."""
    told = []

    def trained(distiller, **_):
        told.append(distiller.embedder)
        raise KeyboardInterrupt

    monkeypatch.setattr(distillation_round.RetrieverDistiller, "run", trained)
    embedder = SentenceTransformersDocumentEmbedder(model=minilm, meta_fields_to_embed=["number"], prefix="doc: ")
    loop = make_loop(real_store, embedder, tmp_path, distiller={"query_prefix": "ask: "})
    with pytest.raises(KeyboardInterrupt):
        loop.run(queries=questions)
    untouched = SentenceTransformer(str(tmp_path / "loop" / "round-0" / "model"), device="cpu")
    assert ModelCard.load(tmp_path / "loop" / "round-0" / "model" / "README.md").data.license == "apache-2.0"
    assert (untouched.prompts["query"], untouched.prompts["document"]) == ("ask: ", "doc: ")
    assert told[0].model == str(tmp_path / "loop" / "round-0" / "model")
    assert (told[0].query_prefix, told[0].meta_fields_to_embed) == ("ask: ", ["number"])
    with pytest.raises(ValueError, match="`truncate_dim` is read from the SentenceTransformersDocumentEmbedder"):
        make_loop(real_store, embedder, tmp_path, distiller={"truncate_dim": 8}).run(queries=questions)


def test_the_reader_learns_before_it_labels(store, bert, passages, reader_folder, tmp_path):
    lines = [
        {"_id": f"t{n}", "text": text.split(". ")[0], "answers": [text.split()[0]]}
        for n, text in enumerate(list(passages.values())[:24])
    ]
    file = tmp_path / "questions.jsonl"
    file.write_text("\n".join(json.dumps(line) for line in lines) + "\n")
    loop = make_loop(
        store,
        bert,
        tmp_path,
        rounds=1,
        top_k=3,
        scorer=TeacherLikelihoodScorer(model=reader_folder("llama"), signal="pdist"),
        reader_fine_tuner=ReaderFineTuner(model=reader_folder("llama"), output="", epochs=1, progress_bar=False),
        distiller={"epochs": 1, "batch_size": 8},
    )
    loop.run(queries=str(file))
    folder = tmp_path / "loop" / "round-1"
    assert (folder / "reader" / "fine_tuning.json").is_file()
    assert TrainingSet.open(folder / "training_set").manifest["teacher"]["model"] == str(folder / "reader")


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"rounds": 0}, "rounds must be at least 1, not 0"),
        ({"distiller": {"model": "x"}}, "`distiller` has 'model', which the loop sets itself or has"),
    ],
)
def test_wrong_settings(store, bert, tmp_path, settings, message):
    with pytest.raises(ValueError, match=message):
        make_loop(store, bert, tmp_path, **settings)


def test_yaml_in_a_fresh_process(store, reader_folder, tmp_path):
    scorer = TeacherLikelihoodScorer(model=reader_folder("llama"), signal="question")
    loop = make_loop(store, "models/all-MiniLM-L6-v2", tmp_path, scorer=scorer)
    file = tmp_path / "loop.yaml"
    code = """
import sys
from haystack import Pipeline
loop = Pipeline.loads(open(sys.argv[1]).read()).get_component("loop")
print(loop.rounds, type(loop.scorer).__name__, loop.distiller["epochs"])
"""
    from haystack import Pipeline

    pipeline = Pipeline()
    pipeline.add_component("loop", loop)
    file.write_text(pipeline.dumps())
    done = subprocess.run([sys.executable, "-c", code, str(file)], capture_output=True, text=True, check=False)
    assert done.stdout.split() == ["2", "TeacherLikelihoodScorer", "4"], done.stderr


def test_the_command(beir, bert, reader_folder, tmp_path):
    arguments = ["distill", str(beir), "--model", bert, "--reader", reader_folder("llama"), "--epochs", "1"]
    arguments += ["--output", str(tmp_path / "out"), "--no-progress", "--top-k", "4"]
    done = CliRunner().invoke(app, [*arguments, "--batch-size", "8"])
    assert done.exit_code == 0, done.output
    assert "Recommended:" in done.output
    assert (tmp_path / "out" / "round-1" / "model" / "report.html").is_file()
    wrong = CliRunner().invoke(app, [*arguments, "--batch-size", "8", "--loss", "kale=1"])
    assert wrong.exit_code == 1
    assert "had other settings" in wrong.output or "not known" in wrong.output


def test_the_command_under_torchrun(beir, bert, reader_folder, tmp_path):
    """Two processes on the CPU: one labels and writes, both train."""
    script = tmp_path / "run.py"
    script.write_text("from haystack_distill.cli import app; app()\n")
    arguments = ["distill", str(beir), "--model", bert, "--reader", reader_folder("llama"), "--epochs", "1"]
    arguments += ["--output", str(tmp_path / "out"), "--no-progress", "--top-k", "4", "--batch-size", "8"]
    done = subprocess.run([*TWO_PROCESSES, str(script), *arguments], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("Recommended:") == 1
    assert (tmp_path / "out" / "round-1" / "model" / "report.html").is_file()


def test_the_pipeline_of_the_docs_loads():
    from haystack import Pipeline

    text = (Path(__file__).parents[2] / "pipelines" / "dkrr.yaml").read_text()
    assert Pipeline.loads(text).get_component("loop").top_k == 16
