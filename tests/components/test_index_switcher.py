"""A new index beside the one that serves: made, judged, and switched to, or not. Stores are real and on disk."""

import asyncio
import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import yaml
from haystack import Pipeline
from typer.testing import CliRunner

from haystack_distill import CurrentRetriever, IndexSwitcher
from haystack_distill.cli import app
from haystack_distill.data.beir import read_beir
from haystack_distill.evaluation.comparison import System
from haystack_distill.evaluation.measures import MEASURES
from haystack_distill.evaluation.pointer import read_pointer
from haystack_distill.evaluation.switching import judge
from haystack_distill.students.bi_encoder import BiEncoder
from haystack_integrations.components.distill.parts import reembedding
from tests.indexes import RETRIEVERS, close, make_store, switcher
from tests.kills import kill_when


@pytest.mark.parametrize("kind", ["faiss", "qdrant"])
def test_a_new_index_takes_over(kind, place, documents, bert, other, beir):
    """What the pointer names, opened by a retriever in the state a query pipeline has it, finds by the new encoder."""
    one = switcher(kind, place, documents, bert, other, max_loss=1.0)
    result = one.run(queries=str(beir))
    assert result["switched"]
    content = json.loads((place / "current.json").read_text())
    assert content["query_model"] == content["document_model"] == other
    assert content["previous"]["query_model"] == bert
    assert content["metrics"]["queries"] == 10
    assert one.run(queries=str(beir)) == {"switched": True, "metrics": {}, "pointer": str(place / "current.json")}
    close(one.document_store, one.new_document_store)
    found = CurrentRetriever(pointer=str(place / "current.json"), retriever=RETRIEVERS[kind], top_k=60)
    asked = "river bridge stone"
    ids = [document.id for document in found.run(query=asked)["documents"]]
    encoder = BiEncoder.load(other, device="cpu")
    scores = encoder.encode_documents([one.content for one in documents]) @ encoder.encode_queries([asked])[0]
    assert ids == [documents[number].id for number in np.argsort(-scores)]
    assert asyncio.run(found.run_async(query=asked))["documents"][0].meta == {"number": int(np.argmax(scores))}
    found.close()


@pytest.mark.parametrize("kind", ["faiss", "qdrant"])
def test_a_worse_index_does_not_take_over(kind, place, documents, bert, other, beir, monkeypatch):
    """The pointer is made for the old index, and stays; the verdict says by how much the new one is worse."""
    monkeypatch.setattr(BiEncoder, "encode_queries", worse(BiEncoder.encode_queries, other))
    one = switcher(kind, place, documents, bert, other)
    result = one.run(queries=str(beir))
    assert not result["switched"]
    assert result["metrics"]["difference"]["difference"] < 0
    assert read_pointer(place / "current.json").query_model == bert
    again = one.run(queries=str(beir))  # the new index is complete, so this only judges
    assert again == result
    close(one.document_store, one.new_document_store)


def worse(encode, folder):
    """Queries of the new encoder are turned round."""
    first = next(BiEncoder.load(folder, device="cpu").model.parameters())

    def encoded(self, texts):
        vectors = encode(self, texts)
        return -vectors if next(self.model.parameters()).equal(first) else vectors

    return encoded


def test_the_verdict_follows_the_figures(index, teacher, beir):
    """Equal is not worse; lower is, unless that much is allowed."""
    data = read_beir(beir)
    good = System("good", teacher.encode_queries, 6)
    bad = System("bad", lambda texts: -teacher.encode_queries(texts), 6)

    def verdict(old, new, **options):
        return judge((old, index), (new, index), data.queries, data.qrels["dev"], **options)

    assert verdict(good, good)["not_worse"]
    assert verdict(bad, good)["not_worse"]
    assert not verdict(good, bad)["not_worse"]
    assert verdict(good, bad, max_loss=1.0)["not_worse"]
    assert verdict(bad, good)["difference"]["difference"] == pytest.approx(
        -verdict(good, bad)["difference"]["difference"]
    )


def test_a_pair_of_encoders_serves_its_two_sides(place, documents, bert, other, beir):
    """A folder with `query` and `document`: documents by the one, queries by the other."""
    (place / "pair").mkdir()
    (place / "pair" / "query").symlink_to(bert)
    (place / "pair" / "document").symlink_to(other)
    one = switcher("faiss", place, documents, bert, str(place / "pair"), max_loss=1.0)
    assert one.run(queries=str(beir))["switched"]
    serving = read_pointer(place / "current.json")
    assert (serving.query_model, serving.document_model) == tuple(
        str(place / "pair" / side) for side in ("query", "document")
    )
    stored = next(iter(make_store("faiss", place / "new").documents.values()))
    expected = BiEncoder.load(other, device="cpu").encode_documents([stored.content])[0]
    np.testing.assert_allclose(stored.embedding, expected, atol=1e-4)


SCRIPT = """
import sys, time
from haystack_distill import IndexSwitcher
from haystack_distill.data.beir import read_beir
from haystack_distill.students.bi_encoder import BiEncoder
from haystack_integrations.components.distill.parts import reembedding
from haystack_integrations.document_stores.qdrant import QdrantDocumentStore
place, teacher, model, beir = sys.argv[1:]
reembedding.WRITE = 5
encode = BiEncoder.encode_documents
BiEncoder.encode_documents = lambda self, texts, **k: (time.sleep(0.3), encode(self, texts, **k))[1]
old, new = (
    QdrantDocumentStore(path=f"{place}/{name}", embedding_dim=32, similarity="cosine", progress_bar=False)
    for name in ("old", "new")
)
switcher = IndexSwitcher(
    document_store=old, teacher=teacher, new_document_store=new, model=model, pointer=f"{place}/current.json",
    progress_bar=False, max_loss=1.0,
)
switcher.run(queries=beir)
"""


def test_a_killed_switch_leaves_the_old_index_serving_and_goes_on(place, documents, bert, other, beir, monkeypatch):
    """kill -9 while the new index is half written; the second run embeds only what is missing, then switches."""
    close(make_store("qdrant", place / "old", documents))
    (place / "tmp").mkdir()
    environment = {**os.environ, "TMPDIR": str(place / "tmp")}
    run = subprocess.Popen([sys.executable, "-c", SCRIPT, *map(str, (place, bert, other, beir))], env=environment)
    database = place / "new" / "collection" / "Document" / "storage.sqlite"
    kill_when(lambda: database.exists() and rows_in(database) >= 10, run)
    assert not list((place / "tmp").rglob("vectors.f32")), "nobody would remove a copy of the index from there"
    serving = read_pointer(place / "current.json")
    assert serving.query_model == bert
    retriever = CurrentRetriever(pointer=str(place / "current.json"), retriever=RETRIEVERS["qdrant"], top_k=60)
    assert len(retriever.run(query="river")["documents"]) == 60
    retriever.close()
    old, new = make_store("qdrant", place / "old"), make_store("qdrant", place / "new")
    held = new.count_documents()
    assert 10 <= held < 60
    embedded = count_calls(monkeypatch)
    one = IndexSwitcher(
        document_store=old,
        teacher=bert,
        new_document_store=new,
        model=other,
        pointer=str(place / "current.json"),
        progress_bar=False,
        max_loss=1.0,
    )
    assert one.run(queries=str(beir))["switched"]
    assert embedded == [60 - held]
    assert not (place / ".current.json.run").exists()
    close(old, new)


def rows_in(database: Path) -> int:
    import sqlite3

    try:
        with sqlite3.connect(f"file:{database}?mode=ro", uri=True) as connection:
            return connection.execute("select count(*) from points").fetchone()[0]
    except sqlite3.OperationalError:
        return 0


def count_calls(monkeypatch) -> list[int]:
    """How many documents were embedded for the new index, call by call."""
    calls, embed = [], reembedding._embedded

    def counted(rows, *arguments):
        calls.append(len(rows))
        return embed(rows, *arguments)

    monkeypatch.setattr(reembedding, "_embedded", counted)
    return calls


def test_documents_that_changed_meanwhile_are_embedded_again(place, documents, teacher, monkeypatch):
    documents[59] = replace(documents[59], embedding=None)
    source, target = make_store("faiss", place / "old", documents), make_store("faiss", place / "new")
    reembedding.reembed(source, target, teacher, progress=False)
    assert target.documents["d59"].embedding is None
    source.documents["d3"] = replace(source.documents["d3"], content="another text")
    calls = count_calls(monkeypatch)
    assert reembedding.reembed(source, target, teacher, ["number"], progress=False) == 1
    assert calls == [1]
    expected = teacher.encode_documents(["3\nanother text"])[0]
    np.testing.assert_allclose(target.documents["d3"].embedding, expected, atol=1e-5)
    source.delete_documents(["d5"])
    with pytest.raises(ValueError, match="1 documents that the old one lacks \\('d5'"):
        reembedding.reembed(source, target, teacher, progress=False)


def test_after_a_refused_switch_an_empty_index_is_the_way_out(place, documents, bert, other, beir, monkeypatch):
    """Another encoder does not get the index that is there, and nothing but an empty one is asked for."""
    monkeypatch.setattr(BiEncoder, "encode_queries", worse(BiEncoder.encode_queries, other))
    refused = switcher("faiss", place, documents, bert, other)
    assert not refused.run(queries=str(beir))["switched"]
    again = switcher("faiss", place, [], bert, bert)
    with pytest.raises(ValueError, match="name an empty index"):
        again.run(queries=str(beir))
    again.new_document_store = make_store("faiss", place / "another")
    assert again.run(queries=str(beir))["switched"]
    assert read_pointer(place / "current.json").document_store["init_parameters"]["index_path"].endswith("another")


def test_the_yaml_runs_and_the_command_tells_the_outcome(place, documents, bert, other, beir):
    """pipelines/reindex.yaml with its folders filled in, through `haystack-distill reindex`."""
    content = yaml.safe_load((Path(__file__).parents[2] / "pipelines" / "reindex.yaml").read_text())
    parameters = content["components"]["switcher"]["init_parameters"]
    parameters |= {"teacher": bert, "model": other, "max_loss": 1.0, "progress_bar": False}
    for name in ("document_store", "new_document_store"):
        parameters[name]["init_parameters"] |= {"embedding_dim": 32, "progress_bar": False}
    (place / "reindex.yaml").write_text(yaml.safe_dump(content))
    close(make_store("qdrant", place / "index", documents))
    done = CliRunner().invoke(app, ["reindex", "reindex.yaml", str(beir)])
    assert done.exit_code == 0, done.output
    assert "current.json names the new index now." in done.output
    assert read_pointer("current.json").document_model == other


def test_the_command_says_when_the_old_index_stays(monkeypatch):
    figures = {row.key: {"value": 0.5, "low": 0.4, "high": 0.6} for row in MEASURES}
    metrics = {"old": figures, "new": figures, "difference": {"difference": -0.1, "p": 0.01}, "queries": 3}

    class Loaded:
        pipeline = Pipeline()

        def run(self, **_):
            return {"switched": False, "metrics": metrics, "pointer": "current.json"}

    monkeypatch.setattr("haystack_integrations.components.distill.pipelines.load_pipeline", lambda _: Loaded())
    done = CliRunner().invoke(app, ["reindex", "reindex.yaml", "questions"])
    assert done.exit_code == 1
    assert "stays: the new index is worse" in done.output


def test_both_components_survive_serialisation(place, documents, bert, other):
    one = switcher("faiss", place, documents, bert, other, max_loss=0.02, query_model=bert)
    assert IndexSwitcher.from_dict(one.to_dict()).to_dict() == one.to_dict()
    retriever = CurrentRetriever(pointer="current.json", retriever=RETRIEVERS["faiss"], top_k=3)
    assert CurrentRetriever.from_dict(retriever.to_dict()).to_dict() == retriever.to_dict()
