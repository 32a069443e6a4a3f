"""`haystack-distill init`: pipelines for one's own store and encoder, which run as they are."""

import json
from pathlib import Path

import pytest
import yaml

from haystack_distill import load_pipeline
from haystack_distill.cli.init import PIPELINES
from haystack_integrations.components.distill.stores.known import KINDS

WITH_WORDS = {"pgvector", "inmemory"}


def stores_in(content) -> list[dict]:
    """All document stores of a pipeline, however deep."""
    if isinstance(content, list):
        return [store for part in content for store in stores_in(part)]
    if not isinstance(content, dict):
        return []
    own = [content] if str(content.get("type", "")).endswith("DocumentStore") else []
    return own + [store for part in content.values() for store in stores_in(part)]


@pytest.mark.usefixtures("place")
@pytest.mark.parametrize("store", ["qdrant", "pgvector", "chroma", "faiss", "milvus", "InMemory", "in-memory"])
def test_what_is_written(store, bert, command):
    code, said = command("init", "own", "--store", store, "--model", bert)
    assert code == 0, said
    name = store.replace("-", "").lower()
    written = {path.stem for path in Path("own").iterdir()}
    assert written == {"store", *PIPELINES} - (set() if name in WITH_WORDS else {"hybrid_fusion", "hybrid"})
    described = yaml.safe_load(Path("own/store.yaml").read_text())
    assert described["type"].lower().endswith(f"{name}documentstore")
    for pipeline in written - {"store"}:
        text = Path(f"own/{pipeline}.yaml").read_text()
        content = yaml.safe_load(text)
        found = stores_in(content)
        assert all(one == described for one in found)
        assert found or pipeline.startswith("g2r")
        types = [line for line in text.splitlines() if "components.retrievers" in line and "type:" in line]
        assert all(name in line.replace("_", "").lower() for line in types)
        assert "all-MiniLM-L6-v2" not in text
        assert text.startswith("#"), "comments stay"


@pytest.mark.parametrize("kind", KINDS.values(), ids=list(KINDS))
def test_what_is_known_of_a_store_is_what_the_store_has(kind, tmp_path, monkeypatch):
    from importlib import import_module

    monkeypatch.chdir(tmp_path)
    for path in filter(None, (kind.in_yaml.store, kind.in_yaml.retriever, kind.in_yaml.keyword)):
        module, _, name = path.rpartition(".")
        cls = getattr(pytest.importorskip(module), name)
        assert f"{cls.__module__}.{cls.__name__}" == path
    module, _, name = kind.in_yaml.store.rpartition(".")
    word = next(iter(kind.similarities))
    store = getattr(import_module(module), name)(**kind.in_yaml.parameters(8, word))
    assert kind.similarity(store) == word


def test_they_run(minilm_table, minilm, command, place):
    """Index, ask: with a table in place of the student that kale.yaml would take minutes to make."""
    texts = place / "texts"
    (texts / "more").mkdir(parents=True)
    (texts / "heron.md").write_text("The heron is a wading bird that stands in shallow water and waits for fish.")
    (texts / "more" / "bridge.txt").write_text("A bridge carries a road or a railway over a river or a valley.")
    (texts / "picture.png").write_bytes(b"\x89PNG")
    assert command("init", "--store", "qdrant", "--model", minilm)[0] == 0
    code, said = command("--help")
    assert code == 0
    code, said = command("run", "indexing.yaml", "documents=texts")
    assert code == 0, said
    assert '"documents_written": 2' in said
    query = Path("query.yaml").read_text()
    student = yaml.safe_load(query)["components"]["retriever"]["init_parameters"]["query_encoder"]["init_parameters"]
    Path("query.yaml").write_text(query.replace(student["model"], minilm_table))
    loaded = load_pipeline("query.yaml")
    found = loaded.run(query="Which bird catches fish in shallow water?")["documents"]
    loaded.pipeline.close()
    assert found[0].meta["source"] == "heron.md"
    assert {document.meta["source"] for document in found} == {"heron.md", "more/bridge.txt"}


@pytest.mark.usefixtures("place", "on_the_hub")
def test_students_of_an_encoder_on_the_hub_are_named_like_it(on_the_hub, command):
    """A name that holds what the shipped pipelines call theirs."""
    name = on_the_hub("sentence-transformers/all-MiniLM-L6-v2")
    code, said = command("init", "--store", "qdrant", "--model", name)
    assert code == 0, said
    aligner = yaml.safe_load(Path("kale.yaml").read_text())["components"]["aligner"]["init_parameters"]
    assert (aligner["teacher"], aligner["output"]) == (name, "models/all-MiniLM-L6-v2-2-layers")
    text = Path("cascade.yaml").read_text()
    assert text.count(f"model: {name}\n") == 1
    assert text.count(f"model: {aligner['output']} ") == 1


@pytest.mark.usefixtures("place")
def test_vectors_compared_by_their_dot_product(make_encoder, command):
    from sentence_transformers import SentenceTransformer

    model = SentenceTransformer(make_encoder("bert"))
    model.similarity_fn_name = "dot"
    model.save("dot")
    assert command("init", "--store", "qdrant", "--model", "dot")[0] == 0
    store = yaml.safe_load(Path("store.yaml").read_text())["init_parameters"]
    assert store["similarity"] == "dot_product"
    assert store["embedding_dim"] == model.get_embedding_dimension()


@pytest.mark.usefixtures("place")
def test_a_model_beside_it_is_named_from_where_the_pipelines_lie(bert, command):
    Path("model").symlink_to(bert)
    assert command("init", "own", "--store", "qdrant", "--model", "model")[0] == 0
    aligner = yaml.safe_load(Path("own/kale.yaml").read_text())["components"]["aligner"]["init_parameters"]
    assert aligner["teacher"] == "../model"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--store", "mongo"], "--store 'mongo' is not known by name: take one of Chroma, FAISS, InMemory"),
        (["--store", "qdrant", "--model", "team/nothing"], "team/nothing is no folder here"),
        (["--store", "qdrant", "--model", "nothing"], "nothing is no sentence-transformers model that says how long"),
    ],
)
def test_what_can_not_be(arguments, message, bert, command, place):
    (place / "nothing").mkdir()
    model = [] if "--model" in arguments else ["--model", bert]
    code, said = command("init", *arguments, *model)
    assert code == 1
    assert message in said
    assert not list(place.glob("*.yaml"))


def test_nothing_is_overwritten(bert, command, place):
    Path("kale.yaml").write_text("mine")
    code, said = command("init", "--store", "qdrant", "--model", bert)
    assert code == 1
    assert "kale.yaml exists, and nothing is overwritten" in said
    assert [path.name for path in place.glob("*.yaml")] == ["kale.yaml"]


def test_faiss_lasts(minilm, command, place):
    """Haystack's writer does not save this store, so `run` does."""
    pytest.importorskip("haystack_integrations.document_stores.faiss")
    (place / "text.txt").write_text("A bridge carries a road over a river.")
    assert command("init", "--store", "faiss", "--model", minilm)[0] == 0
    assert command("run", "indexing.yaml", "documents=text.txt")[0] == 0
    (place / "corpus").mkdir()
    code, said = command("export-corpus", "store.yaml", "corpus/corpus.jsonl")
    assert code == 0, said
    assert json.loads(Path("corpus/corpus.jsonl").read_text())["text"] == "A bridge carries a road over a river."
