"""Judgments as the teacher: people's, or those of generated questions. No reader is needed."""

import json
from pathlib import Path

import pytest
from haystack import Document, component
from haystack.components.retrievers.in_memory import InMemoryBM25Retriever, InMemoryEmbeddingRetriever
from haystack.document_stores.in_memory import InMemoryDocumentStore
from typer.testing import CliRunner

from haystack_distill import DistillationLoop, DistilledRetriever, KaleQueryEncoder, ReaderFineTuner, TrainingSetBuilder
from haystack_distill.cli import app
from haystack_distill.data.training_set import TrainingSet
from haystack_distill.students.bi_encoder import BiEncoder
from tests.conftest import write_beir


@pytest.fixture
def asked(passages, tmp_path) -> Path:
    """Two words of each document; the right one is the document after it, which no retriever knows by itself."""
    queries = {f"q{number}": " ".join(text.split()[:2]) for number, text in enumerate(passages.values())}
    ids = list(passages)
    right = {f"q{number}": ids[(number + 1) % len(ids)] for number in range(1, len(ids))}
    folder = write_beir(tmp_path / "asked", passages, queries, {"train": right})
    with (folder / "qrels" / "train.tsv").open("a") as file:
        file.write("q0\td0\t0\n")
    return folder


def mini_store(minilm, passages) -> InMemoryDocumentStore:
    store = InMemoryDocumentStore(embedding_similarity_function="cosine")
    vectors = BiEncoder.load(minilm, device="cpu").encode_documents(list(passages.values()))
    rows = zip(passages.items(), vectors, strict=True)
    store.write_documents([Document(id=key, content=text, embedding=row.tolist()) for (key, text), row in rows])
    return store


@pytest.mark.parametrize("kind", ["vectors", "words"])
def test_relevant_documents_are_candidates_and_grades_are_scores(kind, store, bert, asked, passages, tmp_path):
    retriever = InMemoryBM25Retriever(store)
    if kind == "vectors":
        inner = InMemoryEmbeddingRetriever(store)
        retriever = DistilledRetriever(retriever=inner, query_encoder=KaleQueryEncoder(model=bert))
    builder = TrainingSetBuilder(retriever=retriever, top_k=4, judgments=True, output=str(tmp_path / "set"))
    assert builder.run(queries=str(asked))["rows"] == len(passages) - 1, "a query without a relevant document is none"
    training_set = TrainingSet.open(tmp_path / "set")
    assert training_set.manifest["teacher"] == {"model": "judgments"}
    rows = list(training_set.labelled())
    assert len(rows) == len(passages) - 1
    for row in rows:
        right = f"d{(int(row.query_id[1:]) + 1) % len(passages)}"
        assert len(row.document_ids) <= 4
        assert row.documents[row.document_ids.index(right)] == passages[right]
        assert row.teacher_scores == [float(one == right) for one in row.document_ids] == row.labels
    assert sum(row.teacher_scores[-1] for row in rows) > len(rows) / 2, "most were not found, and stand last"
    again = TrainingSetBuilder.from_dict(builder.to_dict())
    assert again.to_dict() == builder.to_dict()
    assert again.judgments


def test_the_loop_learns_from_judgments(minilm, minilm_table, passages, asked, tmp_path):
    store = mini_store(minilm, passages)
    # To a table the same words in another order are what it is trained on; judged queries themselves never are.
    queries = {f"t{number}": " ".join(text.split()[1::-1]) for number, text in enumerate(passages.values())}
    ids = list(passages)
    right = {f"t{number}": ids[(number + 1) % len(ids)] for number in range(len(ids))}
    qrels = {"dev": dict(list(right.items())[:30]), "test": dict(list(right.items())[30:])}
    judged = write_beir(tmp_path / "judged", passages, queries, qrels)
    loop = DistillationLoop(
        retriever=InMemoryEmbeddingRetriever(store),
        model=minilm_table,
        output=str(tmp_path / "loop"),
        rounds=1,
        top_k=8,
        distiller={"epochs": 6, "batch_size": 16, "learning_rate": 1e-2},
        progress_bar=False,
    )
    assert DistillationLoop.from_dict(loop.to_dict()).to_dict() == loop.to_dict()
    (row,) = loop.run(queries=str(asked), judged=str(judged))["rounds"]
    assert row["recommended"] == "student"
    assert row["student"] > row["untouched"]
    labels = json.loads((tmp_path / "loop" / "round-1" / "labels.json").read_text())
    assert labels["labelled"] == len(passages) - 1
    report = (tmp_path / "loop" / "round-1" / "model" / "report.html").read_text()
    assert "model: judgments" in report


def test_the_command_without_a_reader(asked, bert, tmp_path):
    arguments = ["distill", str(asked), "--model", bert, "--output", str(tmp_path / "out"), "--no-progress"]
    done = CliRunner().invoke(app, [*arguments, "--epochs", "1", "--top-k", "4", "--batch-size", "8"])
    assert done.exit_code == 0, done.output
    assert "Recommended:" in done.output


def test_bad_input(store, bert, asked, tmp_path):
    words = InMemoryBM25Retriever(store)
    lines = tmp_path / "questions.jsonl"
    lines.write_text('{"_id": "a", "text": "river"}\n')
    builder = TrainingSetBuilder(retriever=words, judgments=True, output=str(tmp_path / "set"))
    with pytest.raises(ValueError, match="has no judgments to learn from: give a BEIR folder, or a reader"):
        builder.run(queries=str(lines))

    @component
    class Nowhere:
        @component.output_types(documents=list[Document])
        def run(self, query: str):
            return {"documents": [Document(id="d1", content=query)]}

    builder = TrainingSetBuilder(retriever=Nowhere(), judgments=True, output=str(tmp_path / "set"))
    with pytest.raises(ValueError, match="Nowhere has no document store to take judged documents from"):
        builder.run(queries=str(asked))
    tuner = ReaderFineTuner(model="reader", output="out")
    with pytest.raises(ValueError, match="`reader_fine_tuner` needs a `scorer`"):
        DistillationLoop(retriever=words, model=bert, output="out", reader_fine_tuner=tuner)
