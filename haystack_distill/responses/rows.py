"""
Contexts with their responses, human and generated, as a training set.

A training set of responses has the dialogue so far as its query, one turn a line and oldest first, as a reader reads
it. `query_text` makes of that what the retriever is given, in training and in serving. The column `labels` marks each
response: `HUMAN`, `GENERATED`, or `MINED` if it was given to another context and an encoder finds it near this one.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from haystack_distill.data.dialogues import HISTORY, format_context, read_contexts
from haystack_distill.data.training_set import Row
from haystack_distill.files.json_lines import read_json_lines
from haystack_distill.files.runs import fingerprint

GIVEN = "given responses"
HUMAN, GENERATED, MINED = 1, 0, -1
MINED_EACH = 4
"""Mined responses of a context by default."""


@dataclass(frozen=True)
class Responses:
    """A context, its turns oldest first, and the responses to it; `human` says whether a person gave each."""

    id: str
    context: list[str]
    texts: list[str]
    human: list[bool]

    @property
    def dialogue(self) -> str:
        """The id of the dialogue."""
        return dialogue_of(self.id)


def dialogue_of(context_id: str) -> str:
    """The id of the dialogue that a context, `dialogue-place`, belongs to."""
    return context_id.rsplit("-", 1)[0]


def read_responses(source: str | Path, history: int = HISTORY) -> list[Responses]:
    """
    Read contexts with their responses.

    :param source: A `.jsonl` file: what `GenerativeAugmenter` wrote (`_id`, `context`, `responses`), or dialogues
        (`_id`, `turns`), whose only responses are the human ones.
    :raises FileNotFoundError: If there is no such file.
    :raises ValueError: If a line holds neither.
    """
    file = Path(source)
    if not _is_responses(file):
        contexts = read_contexts(file, history)
        return [Responses(context.id, context.turns, [context.response], [True]) for context in contexts]
    return list(_read(file, history))


def query_text(query: str, history: int = HISTORY) -> str:
    """What the retriever is given for the query of a training set: turns, one a line, oldest first."""
    return format_context(query.split("\n"), history)


def response_set(rows: Iterable[Row]) -> dict[str, str]:
    """The responses of all contexts, each once: id -> text, to be written to a document store."""
    return {key: text for row in rows for key, text in zip(row.document_ids, row.documents, strict=True)}


def human_ids(rows: Iterable[Row]) -> set[str]:
    """The ids of responses that a person gave to some context; all others of a `response_set` were generated."""
    pairs = ((key, label) for row in rows for key, label in zip(row.document_ids, row.labels or [], strict=False))
    return {key for key, label in pairs if label >= HUMAN}


def human_response(row: Row) -> str | None:
    """The response that a person gave; None if there is none."""
    labels = row.labels or []
    return next((text for text, label in zip(row.documents, labels, strict=False) if label >= HUMAN), None)


def response_id(text: str) -> str:
    """The id of a response, by its content."""
    return fingerprint(text, 24)


def _is_responses(file: Path) -> bool:
    try:
        first = next(read_json_lines(file, "responses or dialogues are read from a .jsonl file"), None)
        return first is not None and "responses" in first[1]
    except ValueError:
        return False  # reading dialogues says what is wrong with it


def _read(file: Path, history: int) -> Iterator[Responses]:
    seen: set[str] = set()
    form = '{"_id", "context": [...], "responses": [{"text", ...}]}'
    for number, row in read_json_lines(file, "responses are read from a .jsonl file", form):
        where = f"{file}, line {number}"
        try:
            key, context = str(row["_id"]), turns_of(row["context"])
            # The human response comes first: a generated one that reads alike counts as the human one.
            human: dict[str, bool] = {}
            for response in row["responses"]:
                human.setdefault(response["text"].strip(), not response.get("generated", False))
            human.pop("", None)
        except (KeyError, TypeError, AttributeError) as error:
            msg = f"{where}: expected {form} ({error!r})."
            raise ValueError(msg) from error
        if not human or not any(turn.strip() for turn in context):
            msg = f"{where}: {key!r} has no {'context' if human else 'response'}; remove it."
            raise ValueError(msg)
        if key in seen:
            msg = f"{where}: the id {key!r} comes twice; give each context an id of its own."
            raise ValueError(msg)
        seen.add(key)
        yield Responses(key, context[-history:], list(human), list(human.values()))


def turns_of(context: Any) -> list[str]:
    """The turns of a context that was read; a TypeError if it is no list, as each letter of a text would be a turn."""
    if not isinstance(context, list) or not all(isinstance(turn, str) for turn in context):
        msg = "the context must be a list of texts"
        raise TypeError(msg)
    return context
