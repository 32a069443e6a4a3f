"""`haystack-distill calibrate` with the pipeline that is shipped, filled in."""

import json
import shutil
from pathlib import Path

import pytest
import yaml

from tests.conftest import sentences, write_beir

CASCADE = Path(__file__).parents[2] / "pipelines" / "cascade.yaml"


@pytest.fixture
def filled(bert, write_index, place) -> Path:
    """pipelines/cascade.yaml in a folder where there is all that it names."""
    for name in ("minilm-2-layers", "all-MiniLM-L6-v2"):
        shutil.copytree(bert, place / "models" / name)
    content = yaml.safe_load(CASCADE.read_text())
    retriever = content["components"]["retriever"]["init_parameters"]["retriever"]
    retriever["init_parameters"]["document_store"]["init_parameters"] = write_index()
    (place / "cascade.yaml").write_text(yaml.safe_dump(content))
    (place / "log.jsonl").write_text("".join(json.dumps({"text": text}) + "\n" for text in sentences(60, seed=31)))
    return place


def test_thresholds_are_written_beside_the_first_encoder_and_the_pipeline_runs(filled, command):
    code, said = command("run", "cascade.yaml", "query=river bridge")
    assert code == 1
    assert "haystack-distill calibrate" in said
    code, said = command("calibrate", "cascade.yaml", "log.jsonl", "--max-share", "0.3")
    assert code == 0, said
    assert "minilm-2-layers answers where it is surer than" in said
    assert "Calibrated on 60 queries; written to models/minilm-2-layers/cascade.json" in said
    assert len(json.loads((filled / "models" / "minilm-2-layers" / "cascade.json").read_text())["values"]) == 1
    code, said = command("run", "cascade.yaml", "query=river bridge")
    assert code == 0
    assert '"answered_by": ' in said


def test_judgments_of_a_folder_are_used(filled, command, passages):
    queries = {f"q{number}": text.split(". ")[0] for number, text in enumerate(passages.values())}
    write_beir(filled / "beir", passages, queries, {"dev": {f"q{n}": f"d{n}" for n in range(60)}})
    code, said = command("calibrate", "cascade.yaml", "beir", "--max-share", "0.5")
    assert code == 0, said
    assert "was lost, by judgments" in said


@pytest.mark.parametrize(
    ("typed", "message"),
    [
        (["cascade.yaml", "log.jsonl"], "Name one target between 0 and 1, max_loss or max_share"),
        (["cascade.yaml", "log.jsonl", "--max-share", "0.01"], "60 queries are too few"),
        (["cascade.yaml", "few.jsonl", "--max-share", "0.5"], "29 queries are too few"),
        (["plain.yaml", "log.jsonl", "--max-share", "0.1"], "has 0 DistilledRetrievers with fallbacks"),
    ],
)
def test_a_mistake_is_one_sentence_and_writes_nothing(filled, command, typed, message):
    lines = (filled / "log.jsonl").read_text().splitlines(keepends=True)
    (filled / "few.jsonl").write_text("".join(lines[:29]))
    content = yaml.safe_load((filled / "cascade.yaml").read_text())
    del content["components"]["retriever"]["init_parameters"]["fallbacks"]
    (filled / "plain.yaml").write_text(yaml.safe_dump(content))
    code, said = command("calibrate", *typed)
    assert (code, message in said) == (1, True), said
    assert not (filled / "models" / "minilm-2-layers" / "cascade.json").exists()
