"""What a job of distillation leaves: nothing of test is learnt, both encoders of a pair say what index they are for."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from haystack import Document
from haystack.components.retrievers.in_memory import InMemoryEmbeddingRetriever
from haystack.document_stores.in_memory import InMemoryDocumentStore
from sentence_transformers import SentenceTransformer

from haystack_distill import DistilledRetriever, KaleQueryEncoder, RetrieverDistiller
from haystack_distill.data.training_set import Row, write_training_set
from haystack_distill.distill.job import DistillationSettings, distill
from haystack_distill.distill.pair import AsymmetricSettings, rows_of_training_set
from haystack_distill.distill.pair_proof import train_and_prove_pair
from haystack_distill.distill.training import RetrieverTraining
from haystack_distill.evaluation import proof
from haystack_distill.evaluation.held_out import Dev
from haystack_distill.files.runs import running, workspace_of
from haystack_distill.training.trainer import METRIC
from tests.conftest import sentences, write_beir

ONCE = RetrieverTraining(epochs=1, batch_size=8)


@pytest.fixture
def learnt(monkeypatch):
    """What the trainer of a retriever is given."""
    given = []

    def killed(_, targets, *__, **___):
        given.append(targets)
        raise KeyboardInterrupt

    monkeypatch.setattr("haystack_distill.distill.job.train_retriever", killed)
    return given


class TestTestIsLeftOut:
    """The same question may stand in train, dev and test, under another id and in other letters."""

    def run(self, bert, training_set, index, work, dev, test, learnt):
        student = SentenceTransformer(bert, device="cpu")
        with pytest.raises(KeyboardInterrupt):
            distill(
                student, training_set, index, DistillationSettings(training=ONCE), work, dev, test=test, progress=False
            )
        return learnt[-1].queries

    def test_of_what_is_learnt(self, bert, training_set, index, learnt, tmp_path):
        dev = Dev({"dev": sentences(1, seed=77)[0]}, {"dev": {"d1": 1}}, judged=True)
        everything = self.run(bert, training_set, index, tmp_path / "a", dev, [], learnt)
        asked = [f"  {everything[3].upper()}!", everything[7]]
        left = self.run(bert, training_set, index, tmp_path / "b", dev, asked, learnt)
        assert left == [query for place, query in enumerate(everything) if place not in {3, 7}]

    def test_of_what_is_held_out_to_select_on(self, bert, training_set, index, learnt, monkeypatch, tmp_path):
        selected = []
        evaluator = "haystack_distill.distill.job.IndexRetrievalEvaluator"
        monkeypatch.setattr(evaluator, lambda queries, *_: selected.append(queries) or (lambda _: {METRIC: 0}))
        self.run(bert, training_set, index, tmp_path / "a", None, [], learnt)
        before = list(selected[-1].values())
        self.run(bert, training_set, index, tmp_path / "b", None, before[:5], learnt)
        assert not set(before[:5]) & {*selected[-1].values(), *learnt[-1].queries}

    def test_it_must_be_said_what_test_asks(self, training_set, index, tmp_path):
        with pytest.raises(TypeError, match="test"):
            distill(None, training_set, index, DistillationSettings(), tmp_path)

    def test_how_many_were_left_out_is_written_down(self, bert, store, training_set, rows, passages, tmp_path):
        test = {f"t{number}": rows[number].query.upper() for number in range(6)}
        dev = {"a": rows[0].query, "b": sentences(1, seed=78)[0], "c": rows[9].query}
        judged = {"dev": dict.fromkeys(dev, "d2"), "test": dict.fromkeys(test, "d1")}
        folder = write_beir(tmp_path / "judged", passages, {**test, **dev}, judged)
        distiller = RetrieverDistiller(
            document_store=store, model=bert, output=str(tmp_path / "out"), epochs=1, batch_size=16, progress_bar=False
        )
        result = distiller.run(training_set=str(training_set.folder), judged=str(folder))
        metrics = result["metrics"]
        # Two sentences of two words may be the same by chance.
        same = sum(row.query in {*(rows[number].query for number in range(6)), rows[9].query} for row in rows)
        assert metrics["left_out"] == {"train": same, "dev": 1}
        assert metrics["provenance"]["queries"] == len(rows) - same
        assert f"{same} of train, 1 of dev" in Path(result["report_path"]).read_text()
        assert metrics["queries"] == 6

    def test_of_the_rows_of_a_pair(self, teacher, bert, training_set, rows, index, passages, monkeypatch, tmp_path):
        trained = []

        def killed(_, rows, *__, **___):
            trained.extend(rows["query"])
            raise KeyboardInterrupt

        monkeypatch.setattr("haystack_distill.distill.pair_proof.train_asymmetric", killed)
        test = {f"t{number}": rows[number].query.upper() for number in range(6)}
        judged = write_beir(tmp_path / "judged", passages, test, {"test": dict.fromkeys(test, "d1")})
        with pytest.raises(KeyboardInterrupt):
            train_and_prove_pair(
                teacher,
                bert,
                training_set,
                index,
                AsymmetricSettings(1, 1),
                tmp_path / "out",
                tmp_path / "run",
                str(judged),
            )
        assert trained
        assert not {query.upper() for query in trained} & set(test.values())
        assert len(trained) < len(rows_of_training_set(training_set))


@pytest.fixture(scope="module")
def pair(request, tmp_path_factory):
    """A pair out of an index of vectors of length 1, by the component."""
    bert, passages = request.getfixturevalue("bert"), request.getfixturevalue("passages")
    teacher = request.getfixturevalue("teacher")
    folder = tmp_path_factory.mktemp("pair")
    vectors = teacher.encode_documents(list(passages.values()))
    store = InMemoryDocumentStore(embedding_similarity_function="cosine")
    store.write_documents(
        [
            Document(id=key, content=text, embedding=vector.tolist())
            for (key, text), vector in zip(passages.items(), vectors, strict=True)
        ]
    )
    made = list(_labelled(teacher, passages, vectors))
    training_set = write_training_set(folder / "set", made, similarity="cosine", teacher={"model": "oracle"})
    distiller = RetrieverDistiller(
        document_store=store,
        model=bert,
        output=str(folder / "out"),
        asymmetric={"query_layers": 1, "document_layers": 1},
        epochs=1,
        batch_size=16,
        progress_bar=False,
    )
    result = distiller.run(training_set=str(training_set.folder))
    return result, distiller, training_set


def _labelled(teacher, passages, vectors):
    ids = list(passages)
    for number, text in enumerate(passages.values()):
        query = text.split(". ")[1]
        places = [(number + step) % len(ids) for step in range(4)]
        scores = (vectors[places] @ teacher.encode_queries([query])[0]).tolist()
        texts = [passages[ids[place]] for place in places]
        yield Row(f"q{number}", query, [], [ids[place] for place in places], texts, scores, [3.0, 2.0, 1.0, 0.0])


class TestPair:
    def test_both_encoders_say_how_they_came_to_be_and_for_which_index(self, pair, passages):
        result, *_ = pair
        for side in ("query", "document"):
            made = json.loads((Path(result["model_path"]) / side / "haystack_distill.json").read_text())
            assert made == result["metrics"]["provenance"]
            index = made["index"]
            assert index["embedded_again"] is True
            assert (index["documents"], index["dim"], index["similarity"]) == (len(passages), 32, "cosine")
            vectors = SentenceTransformer(str(Path(result["model_path"]) / side)).encode(list(passages.values())[:5])
            assert index["normalized"] == bool(np.allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-3)) is True

    def test_a_store_is_checked_before_its_query_encoder_serves(self, pair, passages):
        model = Path(pair[0]["model_path"])
        document = SentenceTransformer(str(model / "document"))
        embedded = document.encode(list(passages.values()))
        stores = {}
        for name, vectors in (("right", embedded), ("long", embedded * np.linspace(1, 5, len(embedded))[:, None])):
            stores[name] = InMemoryDocumentStore(embedding_similarity_function="dot_product")
            stores[name].write_documents(
                [
                    Document(id=key, content=text, embedding=vector.tolist())
                    for (key, text), vector in zip(passages.items(), vectors, strict=True)
                ]
            )
        encoder = KaleQueryEncoder(model=str(model / "query"))
        served = DistilledRetriever(retriever=InMemoryEmbeddingRetriever(stores["right"]), query_encoder=encoder)
        assert served.run(query="river bridge")["documents"]
        wrong = DistilledRetriever(retriever=InMemoryEmbeddingRetriever(stores["long"]), query_encoder=encoder)
        with pytest.raises(ValueError, match="was made for an index that ranks by cosine over vectors of length 1"):
            wrong.run(query="river bridge")

    def test_its_card_and_its_report_say_what_is_to_be_done(self, pair):
        folder = Path(pair[0]["model_path"])
        both, query, document = ((folder / side / "README.md").read_text() for side in ("", "query", "document"))
        assert all("`document` embeds all documents again" in card for card in (both, query, document))
        assert "```python" not in both, "the folder itself can't be loaded"
        assert f'KaleQueryEncoder(model="{folder}/query")' in query
        assert "KaleQueryEncoder" not in document
        assert f'SentenceTransformer("{folder}/document")\nembedding = encoder.encode_document(' in document
        assert "To be embedded again" in (folder / "report.html").read_text()

    def test_a_run_that_was_killed_after_its_output_appeared_is_ended(self, pair, monkeypatch):
        result, distiller, training_set = pair
        with pytest.raises(FileExistsError, match="name a new one"):
            distiller.run(training_set=str(training_set.folder))
        workspace = workspace_of(distiller.output)
        workspace.mkdir()
        (workspace / "run.json").write_text("{}")
        monkeypatch.setattr("haystack_distill.distill.pair_proof.train_asymmetric", None)
        again = distiller.run(training_set=str(training_set.folder))
        assert again["metrics"] == result["metrics"]
        assert not workspace.exists()

    def test_an_output_of_another_run_is_not_taken_for_the_one_that_was_killed(self, pair, monkeypatch):
        _, distiller, training_set = pair
        workspace = workspace_of(distiller.output)
        workspace.mkdir()
        (workspace / "run.json").write_text("{}")
        monkeypatch.setattr(distiller, "seed", 5)
        with pytest.raises(FileExistsError, match="name a new one"):
            distiller.run(training_set=str(training_set.folder))
        shutil.rmtree(workspace)


def test_two_runs_do_not_work_on_one_output(bert, store, training_set, monkeypatch, tmp_path):
    """The second one says so before it reads the index."""
    distiller = RetrieverDistiller(document_store=store, model=bert, output=str(tmp_path / "out"), progress_bar=False)
    module = "haystack_integrations.components.distill.retriever_distiller.index_of"
    monkeypatch.setattr(module, lambda *_: pytest.fail("the index was read"))
    with running(tmp_path / "out"), pytest.raises(BlockingIOError, match="Another process works on"):
        distiller.run(training_set=str(training_set.folder))


def test_a_model_that_is_saved_otherwise_than_it_was_measured_is_not_published(bert, tmp_path, monkeypatch):
    student = SentenceTransformer(bert, device="cpu")
    monkeypatch.setattr(proof, "SentenceTransformer", lambda *_, **__: SentenceTransformer(bert, truncate_dim=16))
    plain = student.encode
    monkeypatch.setattr(student, "encode", lambda *a, **k: plain(*a, **k)[:, :16] * 2)
    with pytest.raises(ValueError, match="its vectors differ by"):
        proof.save_model(tmp_path / "out", student, ["a text"], {})
