from pathlib import Path

from haystack import component
from haystack.dataclasses import ChatMessage, ChatRole
from typing_extensions import TypedDict

from haystack_distill.data.dialogues import HISTORY, check_history, format_context
from haystack_distill.files.layout import PROVENANCE
from haystack_distill.files.shapes import read_json
from haystack_integrations.components.distill.parts.serialising import Serialisable


class _Settings(TypedDict):
    history: int


class _Provenance(TypedDict):
    settings: _Settings


@component
class DialogueQuery(Serialisable):
    """
    Writes a dialogue as the query of a retriever, just as contexts were written when it was trained.

    ### Usage example

    ```python
    from haystack.dataclasses import ChatMessage
    from haystack_distill import DialogueQuery

    messages = [ChatMessage.from_user("Do you like jazz?")]
    query = DialogueQuery(model="models/replies").run(messages=messages)["query"]
    ```
    """

    def __init__(self, *, model: str | None = None, history: int | None = None) -> None:
        """
        Say how much of a dialogue counts.

        :param model: The folder that `ResponseDistiller` made: as many turns count as in its training.
        :param history: How many turns count at most; None takes the model's number, or 20.
        :raises ValueError: If history is below 1.
        """
        if history is not None:
            check_history(int(history))
        self.keep_parameters(locals())
        self._turns: int | None = self.history

    def warm_up(self) -> None:
        """
        Read the history of the model, once.

        :raises FileNotFoundError: If the model's folder does not say with what history it was trained.
        """
        if self._turns is None:
            self._turns = HISTORY if self.model is None else _history_of(Path(self.model))

    @component.output_types(query=str)
    def run(self, messages: list[ChatMessage]) -> dict[str, str]:
        """
        Write the query.

        :param messages: The dialogue, oldest first. System messages and tool calls are no part of a conversation and
            are left out; messages of one speaker that follow each other are one turn.
        :returns: `query`.
        :raises ValueError: If nobody has said anything.
        """
        self.warm_up()
        assert self._turns is not None
        return {"query": format_context(turns_of(messages), self._turns)}


def turns_of(messages: list[ChatMessage]) -> list[str]:
    """Return what two speakers said in turn, oldest first."""
    said: list[tuple[ChatRole, str]] = []
    for message in messages:
        text = (message.text or "").strip()
        if message.role not in {ChatRole.USER, ChatRole.ASSISTANT} or not text:
            continue
        if said and said[-1][0] == message.role:
            said[-1] = (message.role, f"{said[-1][1]}\n{text}")
        else:
            said.append((message.role, text))
    return [text for _, text in said]


def _history_of(folder: Path) -> int:
    file = folder / PROVENANCE
    try:
        return int(read_json(file, _Provenance, "copy the model again.")["settings"]["history"])
    except (OSError, ValueError) as error:
        msg = (
            f"{folder} does not say with what history it was trained ({PROVENANCE}: {error!r}): it was not made by "
            "ResponseDistiller. Name the `history` instead of the model."
        )
        raise FileNotFoundError(msg) from error
