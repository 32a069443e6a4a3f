"""Where the encoder of an index is asked for, the document embedder that made the index may be given itself."""

from dataclasses import replace

import numpy as np
import pytest
import yaml
from haystack import Document, Pipeline
from haystack.components.embedders import MockDocumentEmbedder
from haystack.document_stores.in_memory import InMemoryDocumentStore
from haystack.utils import ComponentDevice
from haystack_integrations.components.embedders.sentence_transformers import SentenceTransformersDocumentEmbedder
from sentence_transformers import SentenceTransformer

from haystack_distill import IndexSwitcher, KaleAligner, RetrievalEvaluator, RetrieverDistiller
from haystack_integrations.components.distill.stores import EmbedderSettings, index_of, teacher_of

CPU = ComponentDevice.from_str("cpu")
SETTINGS = {
    "prefix": "harbour ",
    "meta_fields_to_embed": ["place"],
    "embedding_separator": " / ",
    "normalize_embeddings": True,
    "truncate_dim": 24,
}


@pytest.fixture
def embedder(bert):
    return SentenceTransformersDocumentEmbedder(model=bert, device=CPU, progress_bar=False, **SETTINGS)


@pytest.fixture
def embedded(embedder, passages):
    """A store that the embedder filled."""
    store = InMemoryDocumentStore(embedding_similarity_function="cosine")
    places = ["river", "bridge", "stone"]
    documents = [
        Document(id=key, content=text, meta={"place": places[number % 3]})
        for number, (key, text) in enumerate(passages.items())
    ]
    store.write_documents(embedder.run(documents)["documents"])
    return store


def make_aligner(store, teacher, tmp_path, **settings):
    fixed = {"layers": 1, "epochs": 1, "progress_bar": False, "device": CPU, "output": str(tmp_path / "student")}
    return KaleAligner(document_store=store, teacher=teacher, **fixed, **settings)


def test_its_settings_are_read(embedder, embedded, bert, tmp_path):
    """The encoder that is loaded makes the vectors that the embedder wrote, of the texts that are read."""
    settings = EmbedderSettings.of(embedder, query_prefix="ask ", similarity="cosine")
    index, encoder = index_of(embedded, settings, tmp_path / "view"), teacher_of(settings, CPU)
    assert (encoder.document_prefix, encoder.query_prefix) == ("harbour ", "ask ")
    assert np.allclose(encoder.encode_documents(index.texts), index.vectors, atol=1e-5)
    alone = SentenceTransformer(bert, device="cpu").encode(["ask river"])[:, :24]
    assert np.allclose(encoder.encode_queries(["river"]), alone / np.linalg.norm(alone), atol=1e-5)


def test_the_models_default_prompt_stands_before_all(bert, tmp_path):
    """As the embedder has it, which knows nothing of a prompt for documents."""
    model = SentenceTransformer(bert, device="cpu")
    model.prompts = {"default": "winter ", "document": "never "}
    model.default_prompt_name = "default"
    model.save(str(tmp_path / "prompted"), create_model_card=False)
    embedder = SentenceTransformersDocumentEmbedder(model=str(tmp_path / "prompted"), prefix="stone ", device=CPU)
    vector = embedder.run([Document(content="river bridge")])["documents"][0].embedding
    ours = teacher_of(EmbedderSettings.of(embedder), CPU).encode_documents(["river bridge"])[0]
    assert np.allclose(vector, ours, atol=1e-5)


def test_an_alignment_from_yaml(embedder, embedded, bert, beir, tmp_path):
    """The embedder is nested as it stands in the indexing pipeline."""
    pipeline = Pipeline()
    pipeline.add_component("aligner", make_aligner(embedded, embedder, tmp_path))
    written = yaml.safe_load(pipeline.dumps())["components"]["aligner"]["init_parameters"]
    assert written["teacher"]["init_parameters"]["prefix"] == "harbour "
    assert (written["document_prefix"], written["meta_fields_to_embed"]) == (None, [])
    result = Pipeline.loads(pipeline.dumps()).run({"aligner": {"test": str(beir)}})["aligner"]
    assert result["metrics"]["provenance"]["teacher"] == bert
    assert result["metrics"]["provenance"]["index"]["dim"] == 24
    students = {"one layer": result["model_path"]}
    output = str(tmp_path / "evaluation")
    evaluator = RetrievalEvaluator(
        document_store=embedded, teacher=embedder, students=students, output=output, device=CPU
    )
    figures = evaluator.run(queries=str(beir))["metrics"]
    assert figures["teacher"]["ndcg@10"] == pytest.approx(result["metrics"]["teacher"]["ndcg@10"])
    with pytest.raises(ValueError, match="name the encoder that the documents were embedded with"):
        make_aligner(embedded, bert, tmp_path / "other").run()


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("document_prefix", "a"),
        ("normalize_embeddings", True),
        ("truncate_dim", 24),
        ("meta_fields_to_embed", ["place"]),
        ("embedding_separator", " / "),
    ],
)
def test_a_setting_is_given_once(name, value, embedder, tmp_path):
    for make in (
        lambda **settings: make_aligner(None, embedder, tmp_path, **settings),
        lambda **settings: RetrieverDistiller(document_store=None, model=embedder, output="o", **settings),
        lambda **settings: RetrievalEvaluator(
            document_store=None, teacher=embedder, students={"s": "m"}, output="o", **settings
        ),
        lambda **settings: IndexSwitcher(
            document_store=None, teacher=embedder, new_document_store=None, model="m", pointer="p", **settings
        ),
    ):
        with pytest.raises(ValueError, match=f"`{name}` is read from the SentenceTransformersDocumentEmbedder"):
            make(**{name: value})


def test_another_embedder_is_refused(tmp_path):
    with pytest.raises(TypeError, match="a SentenceTransformersDocumentEmbedder, not a MockDocumentEmbedder"):
        make_aligner(None, MockDocumentEmbedder(), tmp_path)


@pytest.mark.parametrize(
    ("name", "value"), [("suffix", " end"), ("encode_kwargs", {"prompt": "a"}), ("tokenizer_kwargs", {"a": 1})]
)
def test_what_can_not_be_read_is_refused(name, value, bert, tmp_path):
    embedder = SentenceTransformersDocumentEmbedder(model=bert, **{name: value})
    with pytest.raises(ValueError, match=f"has `{name}`, which is not read from it: name the model"):
        make_aligner(None, embedder, tmp_path)


def test_it_says_how_the_model_is_loaded(bert, monkeypatch):
    """Whether foreign code is trusted, which revision is meant, and with which token."""
    from haystack.utils import Secret

    from haystack_distill.students import bi_encoder

    told = {}

    def load(name, **arguments):
        told.update(arguments, name=name)
        return SentenceTransformer(bert, device="cpu")

    monkeypatch.setenv("A_TOKEN", "secret")
    monkeypatch.setattr(bi_encoder, "SentenceTransformer", load)
    trust = {"trust_remote_code": True, "revision": "abc", "local_files_only": True}
    embedder = SentenceTransformersDocumentEmbedder(model="team/model", token=Secret.from_env_var("A_TOKEN"), **trust)
    settings = EmbedderSettings.of(embedder)
    teacher_of(settings, CPU)
    assert told == {"name": "team/model", "device": "cpu", "token": "secret", **trust}
    assert "secret" not in repr(settings)


def test_a_switch_would_lose_what_the_embedder_cuts(embedder, embedded, tmp_path):
    qdrant = pytest.importorskip("haystack_integrations.document_stores.qdrant").QdrantDocumentStore
    new = qdrant(path=str(tmp_path / "new"), embedding_dim=32)
    settings = {"document_store": embedded, "new_document_store": new, "model": "m", "pointer": "p"}
    with pytest.raises(ValueError, match="`truncate_dim` would be lost"):
        IndexSwitcher(teacher=embedder, **settings)
    switcher = IndexSwitcher(teacher=embedder, query_model="q", **settings)
    assert switcher.embedder == replace(EmbedderSettings.of(embedder), similarity=None)
    new.close()
