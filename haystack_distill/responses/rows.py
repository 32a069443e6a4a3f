# SPDX-FileCopyrightText: 2026-present haystack-distill contributors
#
# SPDX-License-Identifier: Apache-2.0

"""
Contexts with their responses, human and generated, as a training set.

A training set of responses has the dialogue so far as its query, one turn a line and oldest first, as a reader reads
it. What the retriever is given is made of that by `query_text`, in training and in serving. Each response is labelled:
`HUMAN`, `GENERATED`, or `MINED` if it was given to another context and an encoder finds it near this one.
"""

import hashlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from haystack_distill.data.dialogues import HISTORY, contexts_of, format_context, read_dialogues
from haystack_distill.data.training_set import Row
from haystack_distill.files.json_lines import read_json_lines

GIVEN = "given responses"
HUMAN, GENERATED, MINED = 1, 0, -1
MINED_EACH = 4
"""Mined responses of a context by default."""


@dataclass(frozen=True)
class Responses:
    """
    A context and what can be replied to it.

    :param id: The dialogue's id and the place of the reply in it.
    :param context: The turns before the reply, oldest first.
    :param texts: Replies, none twice.
    :param human: Whether a human gave each of them.
    """

    id: str
    context: list[str]
    texts: list[str]
    human: list[bool]

    @property
    def dialogue(self) -> str:
        """The id of the dialogue."""
        return dialogue_of(self.id)


def dialogue_of(context_id: str) -> str:
    """
    The dialogue that a context is of.

    :param context_id: `dialogue-place`.
    """
    return context_id.rsplit("-", 1)[0]


def read_responses(source: str | Path, history: int = HISTORY) -> list[Responses]:
    """
    Read contexts with their responses.

    :param source: A `.jsonl` file: what `GenerativeAugmenter` wrote (`_id`, `context`, `responses`), or dialogues
        (`_id`, `turns`), whose only responses are the human ones.
    :param history: The most turns of a context.
    :returns: One for each context.
    :raises FileNotFoundError: If there is no such file.
    :raises ValueError: If a line is neither.
    """
    file = Path(source)
    if not file.is_file():
        msg = f"{file} is missing: responses or dialogues are read from a .jsonl file."
        raise FileNotFoundError(msg)
    if not _is_responses(file):
        dialogues = read_dialogues(file)
        return [
            Responses(context.id, context.turns, [context.response], [True])
            for dialogue in dialogues
            for context in contexts_of(dialogue, history)
        ]
    return list(_read(file, history))


def query_text(query: str, history: int = HISTORY) -> str:
    """
    What the retriever is given for the query of a training set of responses.

    :param query: Turns, one a line, oldest first.
    :param history: The most turns to keep.
    :returns: See `format_context`.
    """
    return format_context(query.split("\n"), history)


def response_set(rows: Iterable[Row]) -> dict[str, str]:
    """
    Everything that can be replied: the candidates of all contexts, each once.

    :param rows: Rows of a training set.
    :returns: Id -> text, to be written to a document store.
    """
    return {key: text for row in rows for key, text in zip(row.document_ids, row.documents, strict=True)}


def human_ids(rows: Iterable[Row]) -> set[str]:
    """
    The responses that a human gave to some context; all others of a `response_set` were generated.

    :param rows: Rows of a training set.
    :returns: Their ids.
    """
    pairs = ((key, label) for row in rows for key, label in zip(row.document_ids, row.labels or [], strict=False))
    return {key for key, label in pairs if label >= HUMAN}


def human_reply(row: Row) -> str | None:
    """
    The reply that a human gave.

    :param row: A row of a training set of responses.
    :returns: Its text; None if there is none.
    """
    labels = row.labels or []
    return next((text for text, label in zip(row.documents, labels, strict=False) if label >= HUMAN), None)


def response_id(text: str) -> str:
    """
    The id of a response, by its content.

    :param text: The response.
    """
    return hashlib.sha256(text.encode()).hexdigest()[:24]


def _is_responses(file: Path) -> bool:
    try:
        return any("responses" in row for _, row in islice(read_json_lines(file, "dialogues or responses"), 1))
    except ValueError:
        return False  # reading dialogues says what is wrong with it


def _read(file: Path, history: int) -> Iterator[Responses]:
    seen: set[str] = set()
    form = '{"_id", "context": [...], "responses": [{"text", ...}]}'
    for number, row in read_json_lines(file, "responses are read from a .jsonl file", form):
        where = f"{file}, line {number}"
        try:
            key, context = str(row["_id"]), turns_of(row["context"])
            # The human reply comes first: a generated one that reads alike counts as the human's.
            replies: dict[str, bool] = {}
            for response in row["responses"]:
                replies.setdefault(response["text"].strip(), not response.get("generated", False))
            replies.pop("", None)
        except (KeyError, TypeError, AttributeError) as error:
            msg = f"{where}: expected {form} ({error!r})."
            raise ValueError(msg) from error
        if not replies or not any(str(turn).strip() for turn in context):
            msg = f"{where}: {key!r} has no {'response' if not replies else 'context'}; remove it."
            raise ValueError(msg)
        if key in seen:
            msg = f"{where}: the id {key!r} comes twice; give each context an id of its own."
            raise ValueError(msg)
        seen.add(key)
        yield Responses(key, context[-history:], list(replies), list(replies.values()))


def turns_of(context: Any) -> list[str]:
    """
    The turns of a context that was read.

    :param context: What stands in the file.
    :returns: The turns.
    :raises TypeError: If it is no list of texts; of a single text each letter would be a turn.
    """
    if not isinstance(context, list) or not all(isinstance(turn, str) for turn in context):
        msg = "the context must be a list of texts"
        raise TypeError(msg)
    return context
