"""From a store to a student with its proof, and students beside their teacher."""

import json
from pathlib import Path

import pytest
import yaml
from haystack import Document, Pipeline
from haystack.document_stores.in_memory import InMemoryDocumentStore
from sentence_transformers import SentenceTransformer

from haystack_distill import KaleAligner, KaleQueryEncoder, RetrievalEvaluator
from haystack_distill.data.beir import read_beir
from haystack_distill.data.sentences import index_sentences
from tests.conftest import sentences, write_lines

QUERY = "river bridge stone winter"


class TestKaleAligner:
    def aligner(self, store, bert, tmp_path, **changes):
        parameters = {"document_store": store, "teacher": bert, "layers": 1, "epochs": 2, "progress_bar": False}
        return KaleAligner(**{**parameters, "output": str(tmp_path / "student"), **changes})

    def test_from_store_to_student_with_proof(self, store, bert, beir, tmp_path):
        before = {document.id: document for document in store.filter_documents()}
        result = self.aligner(store, bert, tmp_path).run(queries=str(beir), test=str(beir))
        folder = Path(result["model_path"])
        for file in ("modules.json", "metrics.json", "report.html", "README.md", "haystack_distill.json"):
            assert (folder / file).is_file()
        metrics = json.loads((folder / "metrics.json").read_text())
        assert metrics == json.loads(json.dumps(result["metrics"]))
        for name in ("teacher", "cut_only", "student"):
            figures = metrics[name]
            assert figures["encode_ms"] > 0
            for measure in ("ndcg@10", "recall@10", "mrr@10"):
                low, high = figures["intervals"][measure]
                assert low <= figures[measure] <= high
        assert metrics["share_of_teacher"] == metrics["student"]["ndcg@10"] / metrics["teacher"]["ndcg@10"]
        assert len(metrics["kept_layers"]) == 1
        assert metrics["queries"] == 20
        assert metrics["provenance"]["trained_on"]["queries"] == 30
        assert metrics["provenance"]["index"]["documents"] == 60
        assert {document.id: document for document in store.filter_documents()} == before, "the store was written to"
        assert not list(folder.parent.glob(".*")), "a finished run leaves its workspace"
        assert len(KaleQueryEncoder(model=result["model_path"]).run(text=QUERY)["embedding"]) == 32

    def test_without_test_queries_sentences_are_judged_by_where_they_stand(self, store, bert, tmp_path):
        metrics = self.aligner(store, bert, tmp_path, layers=0).run()["metrics"]
        assert 0 < metrics["teacher"]["ndcg@10"] < 1
        assert "judged by the passages they stand in" in metrics["judged_by"]

    def test_general_text_is_learnt_beside_the_index_but_nothing_that_test_asks(self, store, bert, beir, tmp_path):
        """Of 40 sentences in two files ten are asked in test; one is in the index, and counts as its text."""
        general = [text.capitalize() + "." for text in sentences(28, seed=77, length=9)]
        asked = [f"{text.upper()}!" for text in list(read_beir(beir).texts_of("test"))[:10]]
        own = next(iter(index_sentences([store.filter_documents()[0].content])))
        write_lines(tmp_path / "more.jsonl", [{"text": text} for text in [*asked, own]])
        (tmp_path / "prose.txt").write_text(" ".join(general))
        text = [str(tmp_path / name) for name in ("prose.txt", "more.jsonl")]
        metrics = self.aligner(store, bert, tmp_path, layers=0, fit="ridge", text=text).run(test=str(beir))["metrics"]
        made = metrics["provenance"]
        alone = self.aligner(store, bert, tmp_path / "alone", layers=0, fit="ridge").run(test=str(beir))["metrics"]
        assert made["trained_on"] == {**alone["provenance"]["trained_on"], "general_texts": 28}
        assert metrics["left_out"]["general_texts"] == 10
        assert "28 other texts" in (tmp_path / "student" / "README.md").read_text()

    def test_general_text_alone(self, store, bert, beir, tmp_path):
        (tmp_path / "prose.md").write_text(". ".join(sentences(30, seed=77, length=9)))
        aligner = self.aligner(store, bert, tmp_path, index_text=False, text=[str(tmp_path / "prose.md")])
        made = aligner.run(test=str(beir))["metrics"]["provenance"]
        assert made["trained_on"] == {"queries": 0, "index_texts": 0, "general_texts": 30}

    def test_general_text_that_is_none(self, store, bert, tmp_path):
        (tmp_path / "empty.txt").write_text("No.")
        write_lines(tmp_path / "other.jsonl", [{"question": "What is it?"}])
        write_lines(tmp_path / "numbers.jsonl", [{"text": 3}])
        (tmp_path / "pictures").mkdir()
        for name, message in (
            ("empty.txt", "holds no sentence of three words or more: leave it out"),
            ("other.jsonl", r"column `text` of .*other.jsonl is not there \(question are\): it must hold texts"),
            ("numbers.jsonl", r"column `text` of .*numbers.jsonl holds 3: it must hold texts"),
            ("missing.txt", "missing.txt is missing: name a folder of .txt, .md, .markdown, .rst files, one of them"),
            ("pictures", "pictures holds no text: name a folder of .txt"),
            ("missing", "missing is no folder, no .jsonl, .csv or .parquet file, and no data set"),
        ):
            aligner = self.aligner(store, bert, tmp_path, text=[str(tmp_path / name)])
            with pytest.raises((ValueError, FileNotFoundError), match=message):
                aligner.run()
        learnt = self.aligner(store, bert, tmp_path, layers=0, fit="ridge").run()["model_path"]
        update = KaleAligner(document_store=store, teacher=bert, output="o", update=learnt, text=["prose.md"])
        with pytest.raises(ValueError, match="leave `text` out, or `update`"):
            update.run()

    def test_an_unnormalised_dot_product_index(self, make_encoder, passages, tmp_path):
        """Scales differ by orders of magnitude; the same defaults must train."""
        name = make_encoder("bert", normalize=False)
        encoder = SentenceTransformer(name, device="cpu")
        store = InMemoryDocumentStore(embedding_similarity_function="dot_product")
        store.write_documents([Document(content=t, embedding=encoder.encode(t).tolist()) for t in passages.values()])
        metrics = self.aligner(store, name, tmp_path, layers=2, epochs=3).run()["metrics"]
        assert metrics["provenance"]["index"]["normalized"] is False
        assert metrics["student"]["ndcg@10"] > metrics["cut_only"]["ndcg@10"]

    def test_to_dict_and_back(self, store, bert, tmp_path):
        aligner = self.aligner(store, bert, tmp_path, keep=[0, 5], loss={"cosine": 1.0})
        pipeline = Pipeline()
        pipeline.add_component("aligner", aligner)
        again = Pipeline.loads(pipeline.dumps())
        assert again.to_dict() == pipeline.to_dict()
        assert again.get_component("aligner").keep == [0, 5]
        assert again.to_dict()["components"]["aligner"]["init_parameters"]["device"] is None

    def test_numbers_written_by_hand_in_yaml(self, store, bert, tmp_path):
        """YAML 1.1 reads 1e-5 as a string."""
        aligner = self.aligner(
            store, bert, tmp_path, **yaml.safe_load("{learning_rate: 1e-5, embedding_learning_rate: 3e-3}")
        )
        assert (aligner.learning_rate, aligner.embedding_learning_rate) == (1e-5, 3e-3)

    def test_an_output_folder_that_exists(self, store, bert, tmp_path):
        (tmp_path / "student").mkdir()
        with pytest.raises(FileExistsError, match="exists already"):
            self.aligner(store, bert, tmp_path).run()

    def test_an_empty_store(self, bert, tmp_path):
        with pytest.raises(ValueError, match="holds no documents"):
            self.aligner(InMemoryDocumentStore(), bert, tmp_path).run()

    def test_a_store_without_embeddings(self, bert, tmp_path):
        store = InMemoryDocumentStore()
        store.write_documents([Document(content="a text without a vector")])
        with pytest.raises(ValueError, match="all 1 documents lack an embedding"):
            self.aligner(store, bert, tmp_path).run()

    def test_vectors_of_another_model(self, store, make_encoder, tmp_path):
        with pytest.raises(ValueError, match="not made by this encoder"):
            self.aligner(store, make_encoder("bert", seed=11), tmp_path).run()

    @pytest.mark.parametrize(("value", "fault"), [(float("nan"), "NaN"), (0.0, "all zeros")])
    def test_a_broken_vector(self, value, fault, bert, tmp_path):
        store = InMemoryDocumentStore()
        store.write_documents([Document(id="bad", content="x", embedding=[value] * 32)])
        with pytest.raises(ValueError, match=f"'bad' .*{fault}"):
            self.aligner(store, bert, tmp_path).run()

    def test_more_layers_than_the_model_has(self, store, bert, tmp_path):
        with pytest.raises(ValueError, match="the encoder has 6 layers"):
            self.aligner(store, bert, tmp_path, layers=7).run()

    def test_a_wrong_loss(self, store, bert, tmp_path):
        with pytest.raises(ValueError, match="'triplet' is not known"):
            self.aligner(store, bert, tmp_path, loss={"triplet": 1}).run()

    def test_test_queries_of_another_corpus(self, store, bert, beir, tmp_path):
        store.delete_documents(["d45"])
        with pytest.raises(ValueError, match="judges documents that the index lacks"):
            self.aligner(store, bert, tmp_path).run(test=str(beir))


class TestRetrievalEvaluator:
    def test_students_beside_their_teacher(self, store, bert, beir, tmp_path):
        evaluator = RetrievalEvaluator(
            document_store=store, teacher=bert, students={"same": bert}, output=str(tmp_path / "evaluation")
        )
        result = evaluator.run(queries=str(beir))
        assert result["metrics"]["share_of_teacher"] == 1.0
        assert result["metrics"]["significance"]["p"] == 1.0
        page = Path(result["report_path"]).read_text()
        assert page.startswith("<!doctype html>")
        assert "not made by an alignment" in page

    def test_a_student_of_another_dimension(self, store, bert, beir, minilm, tmp_path):
        evaluator = RetrievalEvaluator(
            document_store=store, teacher=bert, students={"other": minilm}, output=str(tmp_path / "evaluation")
        )
        with pytest.raises(ValueError, match="384 dimensions and the index has 32"):
            evaluator.run(queries=str(beir))

    @pytest.mark.parametrize("students", [{}, {"teacher": "x"}])
    def test_students_must_be_named(self, students, store):
        with pytest.raises(ValueError, match="at least one student"):
            RetrievalEvaluator(document_store=store, teacher="t", students=students, output="o")
