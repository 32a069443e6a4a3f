import json
import logging
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
import yaml
from sentence_transformers import SentenceTransformer
from typer.testing import CliRunner

from haystack_distill import KaleQueryEncoder
from haystack_distill.cli import app
from haystack_distill.cli.indexing import Documents, FolderStore, loaded_encoder, store_similarity
from haystack_distill.data.beir import Corpus, read_corpus
from haystack_distill.serving.hub import local_folder

RUN = CliRunner()


def test_align_writes_model_metrics_and_report(aligned):
    _, output, result = aligned
    assert result.exit_code == 0, result.output
    assert re.search(r"% of the teacher's nDCG@10, [\d.]+ times as fast", result.output)
    metrics = json.loads((output / "metrics.json").read_text())
    assert metrics["provenance"]["trained_on"]["queries"] == 0
    assert (output / "report.html").is_file()
    assert (output / "model.safetensors").is_file()


def test_an_output_that_exists_is_one_sentence(aligned, bert):
    beir, output, _ = aligned
    result = RUN.invoke(app, ["align", str(beir), "--model", bert, "--output", str(output)])
    assert result.exit_code == 1, result.output
    assert "exists already: name a new one" in result.output
    assert "Traceback" not in result.output


def test_a_folder_with_a_test_split_alone_is_aligned_with_its_text(aligned, bert, tmp_path, caplog):
    beir, _, _ = aligned
    arguments = ["align", beir, "--model", bert, "--layers", "0", "--epochs", "1", "--output", tmp_path / "o"]
    with caplog.at_level(logging.INFO):
        result = RUN.invoke(app, list(map(str, arguments)))
    assert result.exit_code == 0, result.output
    assert "There are no train queries: aligning with the text of the index alone" in caplog.text
    assert json.loads((tmp_path / "o" / "metrics.json").read_text())["judged_by"] == "judged test queries"


def test_a_store_can_be_named(aligned, bert, write_index, tmp_path):
    """Its vectors are read, so a store by another encoder is refused and nothing is embedded beside it."""
    beir, output, _ = aligned
    file = tmp_path / "store.yaml"
    kind = "haystack_integrations.document_stores.qdrant.document_store.QdrantDocumentStore"
    file.write_text(yaml.safe_dump({"type": kind, "init_parameters": write_index(tmp_path / "qdrant")}))
    common = ["--model", bert, "--output", tmp_path / "o", "--store", file]
    result = RUN.invoke(app, list(map(str, ["evaluate", beir, "--student", output, *common])))
    assert result.exit_code == 0, result.output
    assert not (tmp_path / ".o.run").exists()
    result = RUN.invoke(app, list(map(str, ["align", tmp_path / "nowhere", *common[:3], tmp_path / "p", *common[4:]])))
    assert result.exit_code == 1
    assert "nowhere is missing: name a folder with queries and judgments" in result.output


def test_evaluate_compares_students(aligned, bert, tmp_path):
    beir, output, _ = aligned
    arguments = ["evaluate", beir, "--model", bert, "--student", output, "--output", tmp_path / "evaluation"]
    result = RUN.invoke(app, list(map(str, arguments)))
    assert result.exit_code == 0, result.output
    assert set(json.loads((tmp_path / "evaluation" / "metrics.json").read_text())) >= {"teacher", "student"}
    page = (tmp_path / "evaluation" / "report.html").read_text()
    assert re.search(r"layers kept: \d; trained on: 0 queries and \d+ texts of the index; loss: 1 x mse", page)
    assert not list(tmp_path.glob(".*")), "a finished evaluation leaves its vectors"


def test_students_that_are_called_alike(aligned, bert, tmp_path):
    beir, output, _ = aligned
    shutil.copytree(output, tmp_path / "other" / output.name)
    students = ["--student", output, "--student", tmp_path / "other" / output.name]
    result = RUN.invoke(app, list(map(str, ["evaluate", beir, "--model", bert, *students, "--output", tmp_path / "e"])))
    assert result.exit_code == 1
    assert "Two of the students are called alike" in result.output


def test_documents_of_a_file_are_searched_with_an_encoder_of_the_hub(on_the_hub, passages, tmp_path):
    on_the_hub("sentence-transformers/mini")
    retriever = Documents(Corpus(passages, {})).by_text("mini", tmp_path / "questions", progress=False)
    assert len(retriever.run(query="river", top_k=3)["documents"]) == 3
    with pytest.raises(FileNotFoundError, match="team/mistyped is no folder here"):
        local_folder("team/mistyped")


@pytest.mark.parametrize("similarity", ["dot", "cosine"])
def test_an_index_in_memory_ranks_as_the_encoder_is_meant_to(similarity, make_encoder, aligned, tmp_path):
    beir, _, _ = aligned
    encoder = SentenceTransformer(make_encoder("bert", normalize=False), device="cpu", similarity_fn_name=similarity)
    encoder.save(str(tmp_path / "encoder"), create_model_card=False)
    corpus, name = read_corpus(beir / "corpus.jsonl"), str(tmp_path / "encoder")
    store = FolderStore(corpus, loaded_encoder(name), name, tmp_path / "o", progress=False)
    assert store.embedding_similarity_function == {"dot": "dot_product"}.get(similarity, similarity)


def test_a_similarity_that_no_store_in_memory_has():
    with pytest.raises(ValueError, match="compares vectors by manhattan"):
        store_similarity("manhattan", "m")


@pytest.fixture
def embedding(aligned, tmp_path):
    """A pipeline that embeds a query."""
    _, output, _ = aligned
    kind = "haystack_integrations.components.distill.kale_query_encoder.KaleQueryEncoder"
    pipeline = {
        "components": {"encoder": {"type": kind, "init_parameters": {"model": str(output)}}},
        "connections": [],
        "inputs": {"query": ["encoder.text"]},
        "outputs": {"embedding": "encoder.embedding"},
    }
    (tmp_path / "p.yaml").write_text(json.dumps(pipeline))
    return tmp_path / "p.yaml", KaleQueryEncoder(model=str(output))


@pytest.mark.parametrize(
    "query",
    [
        "river bridge",
        "C # language",
        "TypeError: unhashable type",
        "no",
        "2024",
        "*args and **kwargs",
        "[foo] bar",
        "a=b",
    ],
)
def test_run_answers_what_was_asked(query, embedding):
    """A query may look like YAML."""
    pipeline, encoder = embedding
    result = RUN.invoke(app, ["run", str(pipeline), f"query={query}"])
    assert result.exit_code == 0, result.output
    assert np.allclose(json.loads(result.output)["embedding"], encoder.run(text=query)["embedding"], atol=1e-5)


@pytest.mark.parametrize(
    ("inputs", "message"),
    [(["query"], "has no value"), (["quer=a"], "is not one of the pipeline's: .* the names are query")],
)
def test_inputs_that_are_none(inputs, message, embedding):
    result = RUN.invoke(app, ["run", str(embedding[0]), *inputs])
    assert result.exit_code == 1
    assert re.search(message, " ".join(result.output.split()))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda text: text.replace("layers:", "layer:"), "'KaleAligner': .* unexpected keyword argument 'layer'"),
        (lambda text: f"[{text}", "p.yaml is not YAML"),
    ],
)
def test_a_yaml_that_is_wrong_is_one_sentence(change, message, tmp_path):
    text = (Path(__file__).parents[2] / "pipelines" / "kale.yaml").read_text()
    (tmp_path / "p.yaml").write_text(change(text))
    result = RUN.invoke(app, ["run", str(tmp_path / "p.yaml")])
    assert result.exit_code == 1, result.output
    assert re.search(message, " ".join(result.output.split()))
    assert "Traceback" not in result.output
    assert len(result.output.splitlines()) < 4


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["run", "nowhere.yaml", "query=a"], "nowhere.yaml is missing"),
        (["align", "nowhere", "--model", "m", "--output", "o", "--keep", "a,b"], "neither 'kale' nor layer numbers"),
        (["align", "nowhere", "--model", "m", "--output", "o"], "nowhere is missing: name a folder of texts"),
    ],
)
def test_mistakes_are_explained(arguments, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    result = RUN.invoke(app, arguments)
    assert result.exit_code != 0
    assert message in " ".join(result.output.split()), result.output
