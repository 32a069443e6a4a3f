"""`haystack-distill compare-replies --judge`: a chat model that is loaded here, and one behind a server."""

import json
import re

import pytest

from tests.chat_server import chatting


@pytest.fixture
def files(tmp_path):
    paths = []
    for name, word in (("generator", "dull"), ("retriever", "witty")):
        rows = [{"_id": f"c{n}", "context": ["hi", f"turn {n}"], "reply": f"{word} {n}"} for n in range(5)]
        paths.append(tmp_path / f"{name}.jsonl")
        paths[-1].write_text("".join(json.dumps(row) + "\n" for row in rows))
    return paths


def test_a_server_is_asked_in_both_orders(files, command, tmp_path):
    def says(request):
        first = re.search(r"Reply A: (\w+)", request["messages"][-1]["content"])[1]
        return "A" if first == "witty" else "B"

    with chatting(says) as (_, url):
        asked = ("compare-replies", *files, "--judge", "judge", "--api-base-url", url, "--output", tmp_path / "out")
        code, said = command(*asked)
    assert code == 0, said
    assert "preferred over generator" in said
    assert "100 (100 to 100)" in said
    found = json.loads((tmp_path / "out" / "preferences.json").read_text())["over_first"]["retriever"]
    assert (found["preferred"], found["consistent"], found["first_shown"]) == (1.0, 1.0, 0.5)


def test_a_local_model_that_chooses_nothing_is_refused(files, llama, command, tmp_path):
    code, said = command("compare-replies", *files, "--judge", llama, "--contexts", "3", "--output", tmp_path / "out")
    assert code == 1, "a model of random weights chooses nothing"
    assert "never answered A or B" in said
