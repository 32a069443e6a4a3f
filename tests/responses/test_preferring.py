"""What a chat model prefers, in both orders: biased, decided and silent judges, and runs that go on."""

import json
import re

import pytest

from haystack_distill.generation.asking import AskingGenerator, Said
from haystack_distill.responses.judging import SystemResponses
from haystack_distill.responses.preferring import preferences

COUNT = 10
CONTEXTS = {f"c{n}": ["hi", f"turn {n}"] for n in range(COUNT)}


def system(name: str, word: str) -> SystemResponses:
    return SystemResponses(name, CONTEXTS, {key: f"{word} {key}" for key in CONTEXTS})


SYSTEMS = [system("generator", "dull"), system("retriever", "witty"), system("copy", "dull")]


def judge(choose, asked=None) -> AskingGenerator:
    """A chat model that is a function of the replies shown as A and as B."""

    def ask(messages, _):
        text = messages[-1].text
        if asked is not None:
            asked.append(text)
        return Said(choose(*re.search(r"Reply A: (.*)\nReply B: (.*)\n", text).groups()))

    return AskingGenerator(ask, {"model": "judge"}, "judge", at_once=1, tries=1)


def test_a_judge_that_knows_what_it_likes(tmp_path):
    likes_wit = judge(lambda first, _: "A." if first.startswith("witty") else "It is B, I think.")
    found = preferences(SYSTEMS, likes_wit, tmp_path / "out", progress=False)
    assert (found["contexts"], found["first"]) == (COUNT, "generator")
    retriever, copy = found["over_first"]["retriever"], found["over_first"]["copy"]
    assert (retriever["preferred"], retriever["consistent"], retriever["first_shown"]) == (1.0, 1.0, 0.5)
    assert copy["preferred"] == 0.5, "equal replies"
    assert retriever["unclear"] == copy["unclear"] == 0


def test_a_judge_that_chooses_by_position_prefers_nobody_and_is_found_out(tmp_path):
    found = preferences(SYSTEMS[:2], judge(lambda *_: "A"), tmp_path / "out", progress=False)["over_first"]["retriever"]
    assert (found["preferred"], found["low"], found["high"]) == (0.5, 0.5, 0.5)
    assert (found["consistent"], found["first_shown"]) == (0.0, 1.0)


def test_an_answer_that_chooses_nothing_counts_for_nobody(tmp_path):
    silent_on_first = judge(lambda first, _: "Both are fine." if first.startswith("witty") else "B")
    found = preferences(SYSTEMS[:2], silent_on_first, tmp_path / "out", progress=False)["over_first"]["retriever"]
    assert (found["preferred"], found["unclear"], found["consistent"]) == (0.5, 0.5, 0.0)


def test_a_model_that_never_chooses_is_refused(tmp_path):
    with pytest.raises(ValueError, match="judge never answered A or B, but for example 'hm'"):
        preferences(SYSTEMS[:2], judge(lambda *_: "hm"), tmp_path / "out", progress=False)


def test_a_run_that_was_stopped_asks_for_the_rest_alone(tmp_path):
    asked: list[str] = []

    def dies(*_):
        if len(asked) > 7:
            raise KeyboardInterrupt
        return "A"

    with pytest.raises(KeyboardInterrupt):
        preferences(SYSTEMS[:2], judge(dies, asked), tmp_path / "out", progress=False)
    before = len(asked)
    found = preferences(SYSTEMS[:2], judge(lambda *_: "A", asked), tmp_path / "out", progress=False)
    assert before < len(asked) < before + 2 * COUNT
    assert len(set(asked)) == 2 * COUNT
    assert preferences(SYSTEMS[:2], judge(lambda *_: pytest.fail("asked again")), tmp_path / "out") == found
    assert len(json.loads((tmp_path / "out" / "said.json").read_text())) == 2 * COUNT
