"""Ordinary mistakes are one sentence each, never a traceback."""

import copy
import json
import os

import pytest
import yaml
from haystack import Document
from haystack.document_stores.in_memory import InMemoryDocumentStore

from haystack_distill.cli.shared import say, show_encoders

QUERY = {
    "components": {
        "retriever": {
            "type": "haystack.components.retrievers.in_memory.bm25_retriever.InMemoryBM25Retriever",
            "init_parameters": {
                "document_store": {
                    "type": "haystack.document_stores.in_memory.document_store.InMemoryDocumentStore",
                    "init_parameters": {},
                }
            },
        },
        "writer": {
            "type": "haystack.components.writers.document_writer.DocumentWriter",
            "init_parameters": {
                "document_store": {
                    "type": "haystack.document_stores.in_memory.document_store.InMemoryDocumentStore",
                    "init_parameters": {},
                }
            },
        },
    },
    "connections": [],
    "inputs": {
        "query": ["retriever.query"],
        "top_k": ["retriever.top_k"],
        "filters": ["retriever.filters"],
        "scale": ["retriever.scale_score"],
        "documents": ["writer.documents"],
    },
    "outputs": {"documents": "retriever.documents"},
}


@pytest.fixture
def pipeline(tmp_path):
    """Write the pipeline with something changed, given as the path to it and the new value."""

    def write(*change):
        content = copy.deepcopy(QUERY)
        if change:
            *keys, last, value = change
            place = content
            for key in keys:
                place = place[key]
            place[last] = value
        (tmp_path / "p.yaml").write_text(yaml.safe_dump(content))
        return tmp_path / "p.yaml"

    return write


STORE = ("components", "retriever", "init_parameters", "document_store", "type")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (("components", "retriever", "type", "haystack.components.retrievers.in_memory.Nothing"), "Nothing"),
        (
            ("components", "retriever", "type", "haystack_integrations.components.embedders.nowhere.XEmbedder"),
            "embedders.nowhere is not there: correct its name, or install it with `pip install nowhere-haystack`",
        ),
        (
            (*STORE, "haystack_integrations.document_stores.no_where.document_store.NoWhereDocumentStore"),
            "no_where is not there: correct its name, or install it with `pip install no-where-haystack`",
        ),
        (("inputs", "query", ["retriver.query"]), "Component 'retriver' not found in pipeline inputs."),
        (("inputs", "query", ["retriever.qery"]), "Input socket 'qery' not found in component 'retriever'."),
        (("outputs", {"documents": "retriever.documnts"}), "'documnts' not found in component 'retriever'"),
        (("connections", [{"sender": "retriever.documents", "receiver": "x.y"}]), "Component named x not found"),
    ],
)
def test_a_yaml_with_a_mistake(change, message, pipeline, command):
    code, said = command("run", pipeline(*change), "query=a")
    assert code == 1
    assert said.startswith("Error: ")
    assert message in said
    assert said.count("Error") == 1


@pytest.mark.parametrize(
    ("typed", "message"),
    [
        ("top_k=two", "The input 'top_k=two' does not suit the pipeline: top_k takes int, not str."),
        ("scale=3", "scale takes bool, not int"),
        ("filters=x", "filters takes dict, not str"),
        ("documents=x.jsonl", "x.jsonl is missing: name a folder of texts"),
        ("filters={field: meta.x, value: 3}", "Invalid filter syntax"),
    ],
)
def test_an_input_that_does_not_suit(typed, message, pipeline, command):
    arguments = [typed] if typed.startswith("documents") else [typed, "documents=[]"]
    code, said = command("run", pipeline(), "query=a", *arguments)
    assert code == 1
    assert message in said


def test_a_filter_that_no_store_reads(pipeline, command):
    InMemoryDocumentStore(index="mistakes").write_documents([Document(content="a")])
    file = pipeline(*STORE[:-1], "init_parameters", {"index": "mistakes"})
    code, said = command("run", file, "query=a", "documents=[]", "filters={operator: AND}")
    assert code == 1
    assert said.startswith("Error: 'conditions' key missing")


def test_inputs_that_suit(pipeline, command):
    code, said = command("run", pipeline(), "query=a", "top_k=3", "scale=true", "documents=[]", "filters={}")
    assert code == 0, said
    assert json.loads(said) == {"documents": []}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ["align", "beir", "--model", "m", "--output", "o", "--store", "nothing.yaml"],
            "'nothing.yaml' does not exist",
        ),
        (["export", "models/nothing"], "'models/nothing' does not exist"),
        (["export", ".", "--backend", "onx"], "'onx' is not one of 'onnx', 'openvino', 'torch'"),
        (["export", ".", "--precision", "int4"], "'int4' is not one of 'fp32', 'int8'"),
        (["heads", "s", "--reader", "r", "--output", "o", "--method", "best"], "'best' is not one of 'core', 'qr'"),
        (
            ["augment", "s", "--output", "o", "--model", "m", "--mode", "qestions"],
            "'qestions' is not one of 'questions', 'answers', 'responses'",
        ),
    ],
)
def test_what_is_answered_at_once(arguments, message, command, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    code, said = command(*arguments)
    assert code == 2
    assert message in said


@pytest.mark.parametrize("name", ["align", "evaluate", "distill"])
def test_a_model_that_is_nowhere(name, beir, aligned, command, tmp_path):
    students = ["--student", aligned[1]] if name == "evaluate" else []
    settings = ["--batch-size", "8"] if name == "distill" else []
    arguments = [name, beir, "--model", "models/nothing", "--output", tmp_path / "o", *students, *settings]
    code, said = command(*arguments)
    assert code == 1
    assert said.startswith("Error: The encoder models/nothing is no folder here, and models/nothing can't be had from")
    assert not list(tmp_path.glob(".*"))


def test_the_hub_client_names_no_requests(pipeline, command, monkeypatch):
    monkeypatch.delenv("HF_HUB_VERBOSITY", raising=False)
    command("run", pipeline(), "query=a", "documents=[]")
    assert os.environ["HF_HUB_VERBOSITY"] == "error"


def test_names_that_look_like_markup(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "120")
    figures = {"ndcg@10": 0.5, "recall@10": 0.5, "mrr@10": 0.5, "encode_ms": 1.0, "intervals": {"ndcg@10": [0.4, 0.6]}}
    say("Written to [red]x[/blue]")
    show_encoders({"teacher": figures, "[red]x[/blue]": figures})
    printed = capsys.readouterr().out
    assert "Written to [red]x[/blue]\n" in printed
    assert "[red]x[/blue]" in printed.replace("Written to [red]x[/blue]", "")
