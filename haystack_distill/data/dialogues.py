"""
Dialogues, the contexts in them, and the one way in which a context becomes a retriever's query.

A dialogue is a line of JSON: `{"_id": ..., "turns": [...]}`. Turns are strings of two speakers in turn, or
`{"role": ..., "content": ...}` as chat models have them.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from haystack_distill.files.json_lines import read_json_lines

HISTORY = 20
"""Turns of a context that are kept, as in G2R's code (arXiv 2108.12582)."""

SEPARATOR = " | "
"""Between turns; encoders' tokenizers have a token for it, while a newline is a space to most of them."""


@dataclass(frozen=True)
class Dialogue:
    """
    A conversation of at least two turns.

    :param turns: What was said; neighbouring turns are of different speakers.
    :param roles: The speaker of each turn, where the source names roles; else empty, and speakers alternate.
    """

    id: str
    turns: list[str]
    roles: tuple[str, ...] = ()


@dataclass(frozen=True)
class Context:
    """
    What was said before a response, and the response.

    :param id: The dialogue's id and the place of the response in it.
    :param turns: The latest turns, oldest first; the last one is responded to.
    :param dropped: How many older turns did not fit into the history.
    """

    id: str
    turns: list[str]
    response: str
    dropped: int = 0


def read_dialogues(source: str | Path) -> list[Dialogue]:
    """
    Read dialogues from a `.jsonl` file, in their order.

    Turns of one role that follow each other are joined by a newline, and `system` turns are left out: they are no
    part of a conversation. A line without `_id` takes its number, from 0, as its id.

    :raises FileNotFoundError: If there is no such file.
    :raises ValueError: If a line is no dialogue of at least two turns, an id comes twice, or there is no dialogue.
    """
    dialogues: dict[str, Dialogue] = {}
    for number, row in read_json_lines(source, "dialogues are read from a .jsonl file, one a line"):
        where = f"{source}, line {number}"
        read = _dialogue(row, number - 1, where)
        if read.id in dialogues:
            msg = f"{where}: the id {read.id!r} comes twice; give each dialogue an id of its own."
            raise ValueError(msg)
        dialogues[read.id] = read
    if not dialogues:
        msg = f"{source} holds no dialogue."
        raise ValueError(msg)
    return list(dialogues.values())


def contexts_of(dialogue: Dialogue, history: int = HISTORY) -> list[Context]:
    """
    Every response of a dialogue with what was said before it, in order.

    :param dialogue: Where it has a role `assistant`, only that role responds; else both speakers do.
    :param history: The most turns of a context; the oldest are dropped.
    :raises ValueError: If `history` is below 1.
    """
    check_history(history)
    assisted = "assistant" in dialogue.roles
    return [
        Context(
            id=f"{dialogue.id}-{place}",
            turns=dialogue.turns[max(0, place - history) : place],
            response=dialogue.turns[place],
            dropped=max(0, place - history),
        )
        for place in range(1, len(dialogue.turns))
        if not assisted or dialogue.roles[place] == "assistant"
    ]


def read_contexts(source: str | Path, history: int = HISTORY) -> list[Context]:
    """All contexts of a file of dialogues, see `read_dialogues` and `contexts_of`."""
    return [context for dialogue in read_dialogues(source) for context in contexts_of(dialogue, history)]


def format_context(turns: Sequence[str], history: int = HISTORY) -> str:
    """
    Write a context as the text of a query, in training and in serving alike.

    The latest turn stands first: an encoder cuts the end of what is too long for it, which is then the oldest.

    :param turns: What was said, oldest first; the last one is responded to.
    :returns: The latest turns, newest first, each on one line.
    :raises ValueError: If there is no turn with a text, or `history` is below 1.
    """
    check_history(history)
    latest = [" ".join(turn.split()) for turn in reversed(turns[-history:])]
    text = SEPARATOR.join(turn for turn in latest if turn)
    if not text:
        msg = "There is nothing to reply to: the context has no turn with a text."
        raise ValueError(msg)
    return text


def check_history(history: int) -> None:
    """Refuse, with a ValueError, a history that keeps no turn."""
    if history < 1:
        msg = f"history must be at least 1 turn, not {history}."
        raise ValueError(msg)


def _dialogue(row: dict[str, Any], number: int, where: str) -> Dialogue:
    turns = row.get("turns")
    if not isinstance(turns, list):
        msg = f'{where}: expected {{"_id": ..., "turns": [...]}}, a list of what was said.'
        raise ValueError(msg)
    name = f"{where}, dialogue {row.get('_id', number)!r}"
    said = _joined([_turn(turn, name) for turn in turns])
    if len(said) < 2:
        what = "is empty" if not said else "has one turn, to which nobody replies"
        msg = f"{name} {what}: a dialogue needs two turns of different speakers; remove it."
        raise ValueError(msg)
    roles = tuple(role for role, _ in said if role is not None)
    if 0 < len(roles) < len(said):
        msg = f"{name}: some turns name their role and some do not; name all or none."
        raise ValueError(msg)
    if "assistant" in roles and "assistant" not in roles[1:]:
        msg = f"{name}: the assistant never replies; remove it."
        raise ValueError(msg)
    return Dialogue(str(row.get("_id", number)), [text for _, text in said], roles)


def _turn(turn: Any, name: str) -> tuple[str | None, str]:
    role, text = (turn.get("role"), turn.get("content")) if isinstance(turn, dict) else (None, turn)
    if not isinstance(text, str) or not text.strip() or (isinstance(turn, dict) and not isinstance(role, str)):
        msg = f'{name}: a turn is empty or no text ({turn!r}); turns are strings, or {{"role": ..., "content": ...}}.'
        raise ValueError(msg)
    return role, text.strip()


def _joined(turns: list[tuple[str | None, str]]) -> list[tuple[str | None, str]]:
    """Put turns of one role that follow each other together, so that speakers alternate."""
    said: list[tuple[str | None, str]] = []
    for role, text in turns:
        if role == "system":
            continue
        if role is not None and said and said[-1][0] == role:
            said[-1] = (role, f"{said[-1][1]}\n{text}")
        else:
            said.append((role, text))
    return said
