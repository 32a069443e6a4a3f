# SPDX-FileCopyrightText: 2026-present haystack-distill contributors
#
# SPDX-License-Identifier: Apache-2.0

import json
import re

import pytest
from typer.testing import CliRunner

from haystack_integrations.components.distill.cli import app

RUN = CliRunner()


@pytest.fixture(scope="module")
def aligned(bert, tmp_path_factory, passages):
    """One alignment through the command line, for the tests that look at what it left."""
    from tests.conftest import write_beir

    folder = tmp_path_factory.mktemp("cli")
    queries = {f"q{number}": passages[f"d{number}"].split(". ")[0] for number in range(20)}
    beir = write_beir(folder / "beir", passages, queries, {"test": {f"q{n}": f"d{n}" for n in range(20)}})
    output = folder / "student"
    arguments = ["align", beir, "--model", bert, "--layers", "1", "--no-queries", "--epochs", "1", "--no-progress"]
    result = RUN.invoke(app, [*map(str, arguments), "--output", str(output)])
    return beir, output, result


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


def test_train_queries_that_are_not_there(aligned, bert, tmp_path):
    beir, _, _ = aligned
    result = RUN.invoke(app, ["align", str(beir), "--model", bert, "--output", str(tmp_path / "o")])
    assert result.exit_code == 1
    assert "has no qrels/train.tsv" in result.output


def test_evaluate_compares_students(aligned, bert, tmp_path):
    beir, output, _ = aligned
    arguments = ["evaluate", beir, "--model", bert, "--student", output, "--output", tmp_path / "evaluation"]
    result = RUN.invoke(app, list(map(str, arguments)))
    assert result.exit_code == 0, result.output
    assert set(json.loads((tmp_path / "evaluation" / "metrics.json").read_text())) >= {"teacher", "student"}


def test_run_answers_with_a_pipeline(aligned, tmp_path):
    _, output, _ = aligned
    pipeline = {
        "components": {
            "encoder": {
                "type": "haystack_integrations.components.distill.kale_query_encoder.KaleQueryEncoder",
                "init_parameters": {"model": str(output)},
            }
        },
        "connections": [],
        "inputs": {"query": ["encoder.text"]},
        "outputs": {"embedding": "encoder.embedding"},
    }
    (tmp_path / "p.yaml").write_text(json.dumps(pipeline))
    result = RUN.invoke(app, ["run", str(tmp_path / "p.yaml"), "query=river bridge"])
    assert result.exit_code == 0, result.output
    assert len(json.loads(result.output)["embedding"]) == 32


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["run", "nowhere.yaml", "query=a"], "nowhere.yaml is missing"),
        (["align", "nowhere", "--model", "m", "--output", "o", "--keep", "a,b"], "neither 'kale' nor layer numbers"),
        (["align", "nowhere", "--model", "m", "--output", "o"], "nowhere/corpus.jsonl is missing"),
    ],
)
def test_mistakes_are_explained(arguments, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    result = RUN.invoke(app, arguments)
    assert result.exit_code != 0
    assert message in " ".join(result.output.split()), result.output
