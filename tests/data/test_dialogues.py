import json
import tempfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from haystack_distill.data.dialogues import Dialogue, contexts_of, format_context, read_dialogues

TURNS = st.lists(st.text(min_size=1).filter(str.strip), min_size=2, max_size=30)


def write(folder, *rows) -> Path:
    file = folder / "dialogues.jsonl"
    file.write_text("\n".join(row if isinstance(row, str) else json.dumps(row) for row in rows) + "\n")
    return file


def test_reads_strings_and_roles(tmp_path):
    said = [("system", "Be brief."), ("user", "Hello."), ("user", "Are you there?"), ("assistant", "Yes.")]
    file = write(
        tmp_path,
        {"_id": "a", "turns": ["Hi.", " Hello! ", "Hi."]},
        "",
        {"turns": [{"role": role, "content": text} for role, text in said]},
    )
    assert read_dialogues(file) == [
        Dialogue("a", ["Hi.", "Hello!", "Hi."]),
        Dialogue("2", ["Hello.\nAre you there?", "Yes."], ("user", "assistant")),
    ]


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([{"_id": "x", "turns": []}], "line 1, dialogue 'x' is empty"),
        ([{"_id": "x", "turns": ["Hello?"]}], "has one turn, to which nobody replies"),
        ([{"turns": [{"role": "user", "content": "a"}, {"role": "user", "content": "b"}]}], "has one turn"),
        ([{"turns": [{"role": "assistant", "content": "a"}, {"role": "user", "content": "b"}]}], "never replies"),
        ([{"turns": ["a", {"role": "user", "content": "b"}]}], "name all or none"),
        ([{"turns": ["a", "  "]}], "a turn is empty"),
        ([{"turns": ["a", None]}], "a turn is empty or no text"),
        ([{"turns": ["a", {"content": "b"}]}], "a turn is empty or no text"),
        ([{"turns": ["a", "b"]}, "{broken"], "line 2: expected a JSON object"),
        (["[1, 2]"], "expected"),
        ([{"dialogue": ["a", "b"]}], '"turns"'),
        ([{"_id": "x", "turns": ["a", "b"]}] * 2, "line 2: the id 'x' comes twice"),
        ([""], "holds no dialogue"),
    ],
)
def test_says_what_is_wrong(tmp_path, rows, message):
    with pytest.raises(ValueError) as error:
        read_dialogues(write(tmp_path, *rows))
    assert message in str(error.value)


def test_says_that_the_file_is_missing(tmp_path):
    with pytest.raises(FileNotFoundError, match="missing"):
        read_dialogues(tmp_path / "none.jsonl")


@given(turns=TURNS, history=st.integers(1, 40))
def test_a_context_is_the_latest_turns_before_each_reply(turns, history):
    contexts = contexts_of(Dialogue("d", turns), history)
    assert [one.response for one in contexts] == turns[1:]
    assert len({one.id for one in contexts}) == len(contexts)
    for place, one in enumerate(contexts, start=1):
        assert one.turns == turns[:place][-history:]
        assert len(one.turns) + one.dropped == place


def test_only_the_assistant_replies_where_there_is_one():
    roles = ("assistant", "user", "assistant", "user")
    contexts = contexts_of(Dialogue("d", ["Hi.", "Help me.", "How?", "Now."], roles))
    assert [(one.id, one.turns, one.response) for one in contexts] == [("d-2", ["Hi.", "Help me."], "How?")]


@given(turns=TURNS, history=st.integers(1, 40))
def test_a_query_starts_with_what_is_replied_to_and_ends_with_the_oldest_turn(turns, history):
    text = format_context(turns, history)
    assert text.startswith(" ".join(turns[-1].split()))
    assert text.endswith(" ".join(turns[-history:][0].split()))
    # Serving passes the whole conversation, training a context that was cut before: the text is the same.
    assert text == format_context(turns[-history:], history)


def test_a_window_keeps_something():
    with pytest.raises(ValueError, match="at least 1"):
        contexts_of(Dialogue("d", ["a", "b"]), 0)
    with pytest.raises(ValueError, match="at least 1"):
        format_context(["a"], 0)
    with pytest.raises(ValueError, match="nothing to reply to"):
        format_context(["", " "])


@given(dialogues=st.lists(TURNS, min_size=1, max_size=5))
def test_what_is_written_is_read(dialogues):
    with tempfile.TemporaryDirectory() as folder:
        file = write(Path(folder), *({"_id": str(n), "turns": turns} for n, turns in enumerate(dialogues)))
        assert [one.turns for one in read_dialogues(file)] == [[turn.strip() for turn in turns] for turns in dialogues]
