import asyncio
import json
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import yaml
from haystack import Document, Pipeline
from haystack.components.retrievers import MultiRetriever
from haystack.components.retrievers.in_memory import InMemoryEmbeddingRetriever
from haystack.core.errors import DeserializationError
from haystack.document_stores.in_memory import InMemoryDocumentStore
from haystack.utils import Secret
from haystack_integrations.components.retrievers.qdrant import QdrantEmbeddingRetriever
from haystack_integrations.document_stores.qdrant import QdrantDocumentStore
from sentence_transformers import SentenceTransformer

import haystack_distill
from haystack_distill import DistilledRetriever, KaleAligner, KaleQueryEncoder, RetrievalEvaluator, load_pipeline
from haystack_integrations.components.distill.stores import pages_of, similarity_of

PIPELINES = Path(__file__).parents[2] / "pipelines"
QUERY = "river bridge stone winter"


@pytest.fixture(scope="module")
def student(bert) -> str:
    """Any sentence-transformers folder serves where only serving is tested."""
    return bert


class TestKaleQueryEncoder:
    def test_vectors_are_the_models(self, student):
        embedding = KaleQueryEncoder(model=student).run(text=QUERY)["embedding"]
        assert np.allclose(embedding, SentenceTransformer(student, device="cpu").encode(QUERY), atol=1e-6)
        assert isinstance(embedding[0], float)

    def test_async_gives_the_same(self, student):
        encoder = KaleQueryEncoder(model=student)
        assert asyncio.run(encoder.run_async(text=QUERY)) == encoder.run(text=QUERY)

    def test_warm_up_from_many_threads_loads_once(self, student, monkeypatch):
        loads = []
        load = KaleQueryEncoder._load
        monkeypatch.setattr(KaleQueryEncoder, "_load", lambda self: (loads.append(1), load(self))[1])
        encoder = KaleQueryEncoder(model=student)
        with ThreadPoolExecutor(8) as pool:
            found = list(pool.map(lambda _: encoder.run(text=QUERY)["embedding"], range(16)))
        assert len(loads) == 1
        assert all(np.allclose(one, found[0], atol=1e-6) for one in found)

    def test_to_dict_and_back(self, student):
        settings = {"backend": "onnx", "precision": "int8", "threads": 2, "cache_size": 5, "revision": "v1"}
        settings["token"] = Secret.from_env_var("HF_TOKEN", strict=False)
        data = KaleQueryEncoder(model=student, **settings).to_dict()
        assert data == {
            "type": "haystack_integrations.components.distill.kale_query_encoder.KaleQueryEncoder",
            "init_parameters": {"model": student, "device": None, **settings, "token": settings["token"].to_dict()},
        }
        assert KaleQueryEncoder.from_dict(data).to_dict() == data

    @pytest.mark.parametrize("text", ["", "  \n"])
    def test_an_empty_query(self, text, student):
        with pytest.raises(ValueError, match="query is empty"):
            KaleQueryEncoder(model=student).run(text=text)

    def test_several_queries(self, student):
        with pytest.raises(TypeError, match="embeds queries"):
            KaleQueryEncoder(model=student).run(text=["a", "b"])

    def test_a_missing_folder(self, tmp_path):
        with pytest.raises(FileNotFoundError, match="make it with `haystack-distill align`"):
            KaleQueryEncoder(model=str(tmp_path / "nowhere")).warm_up()

    def test_a_folder_that_is_no_model(self, tmp_path):
        with pytest.raises(ValueError, match=r"no modules\.json"):
            KaleQueryEncoder(model=str(tmp_path)).warm_up()


class TestDistilledRetriever:
    def test_documents_are_those_of_the_retriever_in_its_order(self, student, store):
        inner = InMemoryEmbeddingRetriever(store, top_k=7)
        retriever = DistilledRetriever(retriever=inner, query_encoder=KaleQueryEncoder(model=student))
        embedding = KaleQueryEncoder(model=student).run(text=QUERY)["embedding"]
        expected = [document.id for document in inner.run(query_embedding=embedding)["documents"]]
        assert [document.id for document in retriever.run(query=QUERY)["documents"]] == expected
        found = asyncio.run(retriever.run_async(query=QUERY))["documents"]
        assert [document.id for document in found] == expected
        assert len(retriever.run(query=QUERY, top_k=3)["documents"]) == 3
        filters = {"field": "id", "operator": "==", "value": expected[2]}
        assert [one.id for one in retriever.run(query=QUERY, filters=filters)["documents"]] == [expected[2]]

    def test_a_store_that_scores_by_distance_keeps_its_order(self, student, teacher, passages):
        """Qdrant's l2 scores are distances: sorting by score would reverse them."""
        store = QdrantDocumentStore(":memory:", embedding_dim=32, similarity="l2")
        vectors = teacher.encode_documents(list(passages.values()))
        store.write_documents(
            [
                Document(content=text, embedding=vector.tolist())
                for text, vector in zip(passages.values(), vectors, strict=True)
            ]
        )
        retriever = DistilledRetriever(
            retriever=QdrantEmbeddingRetriever(document_store=store), query_encoder=KaleQueryEncoder(model=student)
        )
        found = [document.content for document in retriever.run(query=QUERY, top_k=5)["documents"]]
        distances = np.linalg.norm(vectors - teacher.encode_queries([QUERY]), axis=1)
        assert found == [list(passages.values())[number] for number in np.argsort(distances)[:5]]

    def test_it_is_a_text_retriever_for_haystacks_own_components(self, student, store):
        retriever = DistilledRetriever(
            retriever=InMemoryEmbeddingRetriever(store), query_encoder=KaleQueryEncoder(model=student)
        )
        found = MultiRetriever(retrievers={"distilled": retriever}).run(query=QUERY)["documents"]
        assert len(found) == 10

    def test_a_round_trip_through_yaml(self, student, store):
        pipeline = Pipeline()
        pipeline.add_component(
            "retriever",
            DistilledRetriever(
                retriever=InMemoryEmbeddingRetriever(store), query_encoder=KaleQueryEncoder(model=student), top_k=4
            ),
        )
        again = Pipeline.loads(pipeline.dumps())
        assert again.to_dict() == pipeline.to_dict()

    def test_an_empty_query(self, student, store):
        retriever = DistilledRetriever(
            retriever=InMemoryEmbeddingRetriever(store), query_encoder=KaleQueryEncoder(model=student)
        )
        with pytest.raises(ValueError, match="query is empty"):
            retriever.run(query="")

    def test_top_k_of_nothing(self, store):
        with pytest.raises(ValueError, match="top_k"):
            DistilledRetriever(retriever=InMemoryEmbeddingRetriever(store), query_encoder=None, top_k=0)


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


class TestStores:
    def test_what_was_embedded_is_read_with_its_meta_fields(self):
        store = InMemoryDocumentStore()
        store.write_documents([Document(id="a", content="text", meta={"title": "Title"}, embedding=[1.0])])
        assert list(pages_of(store, ["title", "none"], " / ")) == [[("a", "Title / text", [1.0], "Title")]]

    def test_similarities_are_asked_of_the_store(self):
        assert similarity_of(InMemoryDocumentStore(embedding_similarity_function="cosine")) == "cosine"
        assert similarity_of(QdrantDocumentStore(":memory:", similarity="dot_product")) == "dot_product"
        with pytest.raises(ValueError, match="does not say how it ranks: set `similarity`"):
            similarity_of(object())


class TestLoading:
    def test_the_facade(self):
        assert haystack_distill.KaleQueryEncoder is KaleQueryEncoder
        assert set(dir(haystack_distill)) >= {"KaleAligner", "load_pipeline"}
        with pytest.raises(AttributeError, match="it offers .*DistilledRetriever"):
            haystack_distill.Nothing  # noqa: B018

    @pytest.mark.parametrize("package", ["haystack_distill", "haystack_integrations.components.distill"])
    def test_names_are_imported_when_they_are_asked_for(self, package):
        """From the short path and the long one; and a name that was not asked for is not imported."""
        script = f"""
import sys
import {package} as it
assert not [name for name in sys.modules if name.startswith("haystack.")]
from {package} import ReplySelector, load_pipeline
assert not [name for name in sys.modules if name.endswith("kale_aligner")]
from {package} import *
assert {{"KaleAligner", "TrainingSetBuilder"}} <= globals().keys()
for name in it.__all__:
    assert getattr(it, name).__name__ == name
print(len(it.__all__))
"""
        done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
        assert done.stdout.split() == ["22"], done.stderr

    @pytest.mark.parametrize("name", ["indexing", "kale", "query"])
    def test_pipelines_load_in_a_fresh_process_without_any_flag(self, name, tmp_path):
        script = "import sys; from haystack import Pipeline; Pipeline.loads(open(sys.argv[1]).read()); print('loaded')"
        done = subprocess.run(
            [sys.executable, "-c", script, str(PIPELINES / f"{name}.yaml")],
            capture_output=True,
            text=True,
            cwd=tmp_path,
            check=False,
        )
        assert done.stdout.strip() == "loaded", done.stderr

    def test_the_engine_needs_no_haystack(self):
        script = "import sys, haystack_distill.align.proof; print('haystack' in sys.modules)"
        done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
        assert done.stdout.strip() == "False"

    def test_run_with_keywords(self, student, store, tmp_path):
        pipeline = Pipeline()
        retriever = InMemoryEmbeddingRetriever(store)
        pipeline.add_component(
            "retriever", DistilledRetriever(retriever=retriever, query_encoder=KaleQueryEncoder(model=student))
        )
        content = yaml.safe_load(pipeline.dumps())
        content |= {"inputs": {"query": "retriever.query"}, "outputs": {"documents": "retriever.documents"}}
        (tmp_path / "query.yaml").write_text(yaml.safe_dump(content))
        loaded = load_pipeline(tmp_path / "query.yaml")
        assert len(loaded.run(query=QUERY)["documents"]) == 10

    @pytest.mark.parametrize(
        ("content", "message"),
        [("- a", "is not a pipeline"), ("components: {}\nconnections: []\n", "needs `inputs:` and `outputs:`")],
    )
    def test_yaml_that_is_no_pipeline(self, content, message, tmp_path):
        (tmp_path / "p.yaml").write_text(content)
        with pytest.raises(ValueError, match=message):
            load_pipeline(tmp_path / "p.yaml")

    def test_a_missing_pipeline(self, tmp_path):
        with pytest.raises(FileNotFoundError, match="is missing"):
            load_pipeline(tmp_path / "p.yaml")

    def test_a_wrong_key_is_named(self):
        content = yaml.safe_load((PIPELINES / "kale.yaml").read_text())
        content["components"]["aligner"]["init_parameters"]["layer"] = 2
        with pytest.raises(DeserializationError, match="unexpected keyword argument 'layer'"):
            Pipeline.loads(yaml.safe_dump(content))
