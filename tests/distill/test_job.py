"""A student that learns from labels: its proof, what is embedded again, and what is refused."""

import json
import sys
from pathlib import Path

import numpy as np
import pytest
from haystack import Document
from haystack.document_stores.in_memory import InMemoryDocumentStore
from safetensors.numpy import load_file
from sentence_transformers import SentenceTransformer

from haystack_distill import KaleQueryEncoder, RetrieverDistiller
from haystack_distill.data.index import read_index
from haystack_distill.data.training_set import RECIPROCAL_RANK, Row, write_training_set
from haystack_distill.distill.job import DistillationSettings, distill
from haystack_distill.distill.training import RetrieverTraining
from haystack_distill.evaluation.held_out import Dev
from haystack_distill.evaluation.quality import search
from haystack_distill.losses.retriever import RetrieverLoss
from haystack_distill.students.bi_encoder import BiEncoder
from haystack_distill.students.cutting import find_stack
from tests.conftest import write_beir


def seen_of(rows):
    """
    Dev queries that a token table can't tell from those it is trained on: the same words in another order.

    Random words teach nothing about other random words.
    """
    some = rows[::4]
    qrels = {f"dev-{row.query_id}": {row.document_ids[int(np.argmax(row.teacher_scores))]: 1} for row in some}
    return Dev({f"dev-{row.query_id}": " ".join(reversed(row.query.split())) for row in some}, qrels, judged=True)


def students_ndcg(folder, store_index, rows):
    from haystack_distill.evaluation.quality import measure

    student = SentenceTransformer(folder, device="cpu")
    qrels = {row.query_id: {row.document_ids[int(np.argmax(row.teacher_scores))]: 1} for row in rows}
    run = search(store_index, list(qrels), student.encode([row.query for row in rows]))
    return measure(run, qrels).mean()


class Mini:
    """MiniLM's index of the passages, its token table, and labels: what a real model can learn in seconds."""

    def __init__(self, folder, model, table, passages, rows):
        encoder = BiEncoder.load(model, device="cpu")
        vectors = encoder.encode_documents(list(passages.values()))
        self.index = read_index([list(zip(passages, passages.values(), vectors, strict=True))], folder / "v", "cosine")
        queries = encoder.encode_queries([row.query for row in rows])
        place = {document: number for number, document in enumerate(self.index.ids)}
        made = []
        for number, (row, query) in enumerate(zip(rows, queries, strict=True)):
            # The document after the one that holds the words: something that no retriever knows by itself.
            right = f"d{(number // 2 + 1) % len(passages)}"
            documents = [right, *(one for one in row.document_ids if one != right)][:8]
            scores = vectors[[place[one] for one in documents]] @ query
            changed = {"document_ids": documents, "documents": [passages[one] for one in documents]}
            changed |= {"retriever_scores": scores.tolist(), "teacher_scores": [2.0, *[0.0] * 7]}
            made.append(Row(**{**vars(row), **changed}))
        self.rows = made
        self.training_set = write_training_set(folder / "set", made, similarity="cosine", teacher={"model": "oracle"})
        # To a table the same words in another order are what it is trained on; judged queries themselves never are.
        asked = {f"q{number}": " ".join(reversed(row.query.split())) for number, row in enumerate(made[::2])}
        right = {f"q{number}": row.document_ids[0] for number, row in enumerate(made[::2])}
        ids = list(asked)
        qrels = {"dev": {one: right[one] for one in ids[:40]}, "test": {one: right[one] for one in ids[40:]}}
        self.judged = write_beir(folder / "judged", passages, asked, qrels)
        self.table = table
        self.store = InMemoryDocumentStore(embedding_similarity_function="cosine")
        self.store.write_documents(
            [
                Document(id=key, content=text, embedding=vector.tolist())
                for (key, text), vector in zip(passages.items(), vectors, strict=True)
            ]
        )


@pytest.fixture
def mini(minilm, minilm_table, passages, rows, tmp_path):
    return Mini(tmp_path / "mini", minilm, minilm_table, passages, rows)


LEARNING = {"epochs": 6, "batch_size": 16, "learning_rate": 1e-2}


class TestQuerySide:
    def test_the_retriever_learns_and_the_index_stays(self, mini, tmp_path):
        stored = [document.embedding for document in mini.store.filter_documents()]
        distiller = RetrieverDistiller(
            document_store=mini.store, model=mini.table, output=str(tmp_path / "out"), **LEARNING
        )
        result = distiller.run(training_set=str(mini.training_set.folder), judged=str(mini.judged))
        metrics = result["metrics"]
        assert metrics["recommended"] == "student"
        assert metrics["dev"]["after"] > metrics["dev"]["before"]
        assert metrics["dev"]["judged"] is True
        assert metrics["judged_by"] == "judged test queries"
        assert metrics["queries"] == 20
        assert metrics["embed_again"] == "nothing"
        assert metrics["provenance"]["trained"] == mini.table
        assert students_ndcg(result["model_path"], mini.index, mini.rows) > students_ndcg(
            mini.table, mini.index, mini.rows
        )
        assert [document.embedding for document in mini.store.filter_documents()] == stored
        report = Path(result["report_path"]).read_text()
        assert "first by the untouched" in report
        assert "oracle" in report
        assert len(KaleQueryEncoder(model=result["model_path"]).run(text="river")["embedding"]) == 384
        assert not (tmp_path / ".out.run").exists()

    def test_lora_moves_few_weights_and_is_merged(self, bert, training_set, store, tmp_path):
        pytest.importorskip("peft", reason="the `lora` extra is not installed")
        distiller = RetrieverDistiller(
            document_store=store,
            model=bert,
            output=str(tmp_path / "out"),
            **{**LEARNING, "epochs": 2, "batch_size": 8},
            lora_rank=2,
        )
        path = Path(distiller.run(training_set=str(training_set.folder))["model_path"])
        before, after = load_file(Path(bert) / "model.safetensors"), load_file(path / "model.safetensors")
        assert before.keys() == after.keys(), "adapters are merged: the folder is a plain one"
        moved = {name for name in before if not np.array_equal(before[name], after[name])}
        assert moved
        assert all(name.endswith("weight") and before[name].ndim == 2 for name in moved)
        assert not any("embeddings" in name for name in moved)
        change = next(after[name] - before[name] for name in sorted(moved))
        assert np.linalg.matrix_rank(change, tol=1e-4) <= 2

    def test_lora_where_it_can_not_be_had(self, mini, training_set, store, bert, tmp_path, monkeypatch):
        settings = {"output": str(tmp_path / "out"), "batch_size": 8, "lora_rank": 2}
        table = RetrieverDistiller(document_store=mini.store, model=mini.table, **settings)
        with pytest.raises(ValueError, match="token table: use lora_rank=0"):
            table.run(training_set=str(mini.training_set.folder))
        pair = {"query_layers": 1, "document_layers": 2}
        with pytest.raises(ValueError, match="lora_rank is for one encoder"):
            RetrieverDistiller(document_store=store, model=bert, asymmetric=pair, **settings).settings()
        monkeypatch.setitem(sys.modules, "peft", None)
        with pytest.raises(ImportError, match=r"haystack-distill\[lora\]"):
            RetrieverDistiller(document_store=store, model=bert, **settings).run(training_set=str(training_set.folder))

    def test_mined_negatives_serve_the_contrastive_loss(self, mini, tmp_path):
        settings = DistillationSettings(loss={"contrastive": 1.0}, training=RetrieverTraining(**LEARNING))
        student = SentenceTransformer(mini.table, device="cpu")
        dev = seen_of(mini.rows)
        found = distill(
            student, mini.training_set, mini.index, settings, tmp_path / "work", dev, test=(), progress=False
        )
        assert found.after > found.before

    def test_without_judgments_the_teacher_judges(self, bert, store, training_set, tmp_path):
        distiller = RetrieverDistiller(
            document_store=store, model=bert, output=str(tmp_path / "out"), epochs=1, batch_size=16
        )
        metrics = distiller.run(training_set=str(training_set.folder))["metrics"]
        assert metrics["dev"]["judged"] is False
        assert metrics["judged_by"] == "held-out queries, judged by the teacher's favourite"
        assert metrics["queries"] == 12

    def test_a_student_that_is_no_better_is_not_recommended(self, bert, store, rows, tmp_path, caplog):
        wrong = [Row(**{**vars(row), "teacher_scores": [-score for score in row.teacher_scores]}) for row in rows]
        folder = write_training_set(tmp_path / "wrong", wrong, similarity="cosine", teacher={}).folder
        distiller = RetrieverDistiller(
            document_store=store, model=bert, output=str(tmp_path / "out"), epochs=1, batch_size=16, learning_rate=1e-9
        )
        metrics = distiller.run(training_set=str(folder))["metrics"]
        assert metrics["recommended"] == "untouched"
        assert "stay with the old one" in caplog.text


def test_both_sides_move_and_it_is_said_what_to_embed_again(bert, store, index, training_set, beir, tmp_path):
    distiller = RetrieverDistiller(
        document_store=store,
        model=bert,
        output=str(tmp_path / "out"),
        update="both",
        passages=4,
        epochs=2,
        batch_size=16,
        learning_rate=5e-4,
    )
    metrics = distiller.run(training_set=str(training_set.folder), judged=str(beir))["metrics"]
    assert metrics["embed_again"] == "all documents"
    student = SentenceTransformer(str(tmp_path / "out"), device="cpu")
    moved = student.encode_document(index.texts[:5])
    assert np.abs(moved - index.vectors[:5]).max() > 1e-3


def test_two_depths_are_two_plain_folders(bert, store, training_set, tmp_path):
    distiller = RetrieverDistiller(
        document_store=store,
        model=bert,
        output=str(tmp_path / "out"),
        asymmetric={"query_layers": 1, "document_layers": 3},
        epochs=1,
        batch_size=16,
    )
    result = distiller.run(training_set=str(training_set.folder))
    assert result["metrics"]["embed_again"] == "all documents"
    depths = [len(find_stack(SentenceTransformer(str(tmp_path / "out" / side)))) for side in ("query", "document")]
    assert depths == [1, 3]
    assert "first by the untouched" in Path(result["report_path"]).read_text()
    with pytest.raises(ValueError, match="needs query_layers and document_layers"):
        RetrieverDistiller(document_store=store, model=bert, output="o", asymmetric={"layers": 1}).settings()


class TestBadInput:
    def run(self, store, model, tmp_path, folder, **settings):
        return RetrieverDistiller(
            document_store=store, model=model, output=str(tmp_path / "out"), batch_size=16, **settings
        ).run(training_set=str(folder))

    def test_a_set_without_scores(self, store, bert, rows, tmp_path):
        bare = [Row(**{**vars(row), "teacher_scores": None}) for row in rows]
        folder = write_training_set(tmp_path / "bare", bare, similarity="cosine").folder
        with pytest.raises(ValueError, match="no teacher scores: label it"):
            self.run(store, bert, tmp_path, folder)

    def test_a_set_of_another_model(self, store, make_encoder, bert, rows, tmp_path):
        other = BiEncoder.load(make_encoder("bert", seed=7), device="cpu")
        changed = []
        for row in rows:
            scores = (other.encode_documents(row.documents) @ other.encode_queries([row.query])[0]).tolist()
            changed.append(Row(**{**vars(row), "retriever_scores": scores}))
        folder = write_training_set(tmp_path / "other", changed, similarity="cosine", teacher={}).folder
        with pytest.raises(ValueError, match="vectors of another model"):
            self.run(store, bert, tmp_path, folder)

    def test_a_student_of_another_dimension(self, training_set, index, minilm, tmp_path):
        student = SentenceTransformer(minilm, device="cpu")
        with pytest.raises(ValueError, match="384 dimensions and the index has 32"):
            distill(student, training_set, index, DistillationSettings(), tmp_path / "work", test=())

    def test_candidates_found_by_words_need_no_scores_of_the_model(self, store, bert, rows, tmp_path):
        words = [Row(**{**vars(row), "retriever_scores": [1 / n for n in range(1, 9)]}) for row in rows]
        folder = write_training_set(tmp_path / "words", words, similarity=RECIPROCAL_RANK, teacher={}).folder
        assert self.run(store, bert, tmp_path, folder, epochs=1)["metrics"]["provenance"]["queries"] > 90

    def test_too_few_queries(self, store, bert, rows, tmp_path):
        folder = write_training_set(tmp_path / "few", rows[:10], similarity="cosine", teacher={}).folder
        with pytest.raises(ValueError, match="less than one batch"):
            self.run(store, bert, tmp_path, folder)

    @pytest.mark.parametrize(
        ("settings", "message"),
        [
            ({"update": "documents"}, "use 'query' or 'both'"),
            ({"loss": {"kale": 1.0}}, "'kale' is not known: use listwise, kl"),
            ({"teacher_temperature": "0"}, "positive number or 'entropy'"),
            ({"target_entropy": 2}, "between 0 and 1"),
        ],
    )
    def test_wrong_settings(self, settings, message, store, bert, training_set, tmp_path):
        with pytest.raises(ValueError, match=message):
            self.run(store, bert, tmp_path, training_set.folder, **settings)

    def test_a_loss_that_diverges_at_once(self, store, bert, training_set, tmp_path):
        with pytest.raises(ValueError, match="lower the learning rate"):
            self.run(store, bert, tmp_path, training_set.folder, learning_rate=1e30, epochs=1)

    def test_a_loss_that_diverges_later_keeps_the_best_checkpoint(self, mini, tmp_path, monkeypatch, caplog):
        plain, calls = RetrieverLoss.forward, []

        def broken(self, features, labels):
            calls.append(labels)
            if len(calls) > 15:  # in the third epoch of six steps
                self.temperature = float("nan")
            return plain(self, features, labels)

        monkeypatch.setattr(RetrieverLoss, "forward", broken)
        student = SentenceTransformer(mini.table, device="cpu")
        settings = DistillationSettings(training=RetrieverTraining(**LEARNING))
        work = tmp_path / "work"
        found = distill(
            student, mini.training_set, mini.index, settings, work, seen_of(mini.rows), test=(), progress=False
        )
        assert found.training.diverged
        assert "the best checkpoint before is kept" in caplog.text
        assert len(found.training.history) == 2
        assert found.after == pytest.approx(max(one["dev_ndcg@10"] for one in found.training.history))


def test_metrics_are_documented():
    documented = (Path(__file__).parents[2] / "docs" / "metrics.md").read_text()
    for name in ("recommended", "dev", "embed_again", "share_of_untouched"):
        assert f"`{name}`" in documented


def test_yaml_round_trip(store):
    distiller = RetrieverDistiller(document_store=store, model="m", output="out", learning_rate="1e-5", loss={"kl": 1})
    data = json.loads(json.dumps(distiller.to_dict()))
    assert RetrieverDistiller.from_dict(data).to_dict() == data
    assert data["init_parameters"]["learning_rate"] == 1e-5
    assert data["type"].startswith("haystack_integrations.")
