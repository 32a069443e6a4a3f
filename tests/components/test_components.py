"""What all components share: how stores are read, and how names and pipelines are loaded."""

import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from haystack import Document, Pipeline
from haystack.components.retrievers.in_memory import InMemoryEmbeddingRetriever
from haystack.core.errors import DeserializationError
from haystack.document_stores.in_memory import InMemoryDocumentStore
from haystack_integrations.document_stores.qdrant import QdrantDocumentStore

import haystack_distill
from haystack_distill import DistilledRetriever, KaleQueryEncoder, load_pipeline
from haystack_integrations.components.distill.stores import pages_of, similarity_of

PIPELINES = Path(__file__).parents[2] / "pipelines"
QUERY = "river bridge stone winter"


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
        assert done.stdout.split() == ["24"], done.stderr

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

    def test_run_with_keywords(self, bert, store, tmp_path):
        pipeline = Pipeline()
        retriever = InMemoryEmbeddingRetriever(store)
        pipeline.add_component(
            "retriever", DistilledRetriever(retriever=retriever, query_encoder=KaleQueryEncoder(model=bert))
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
