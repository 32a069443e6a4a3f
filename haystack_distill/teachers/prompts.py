"""Prompts of readers, as data: texts with places for question and passages."""

import re
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

from haystack_distill.files.runs import fingerprint

if TYPE_CHECKING:  # labelling and reading need no model library
    from transformers import PreTrainedTokenizerBase

PLACES = re.compile(r"\{(question|passage|passages)\}")


class UnscorableError(ValueError):
    """
    A question, passage or answer that can't be scored. Labelling sets such rows aside and goes on.

    :param usage: What was paid all the same, see `Scored.usage`.
    """

    def __init__(self, message: str, usage: dict[str, int] | None = None) -> None:
        super().__init__(message)
        self.usage = usage or {}


@dataclass(frozen=True)
class Prompt:
    """
    A text with places for `{question}` and `{passage}`, or for `{passages}` where all stand in one prompt.

    :param text: The text. It is the user's turn where the model has a chat template.
    :param cue: Ends the text where the model has no chat template.
    :param item: One of several passages, with `{number}` and `{passage}`.
    """

    text: str
    cue: str = ""
    item: str = "[{number}] {passage}\n\n"

    def __post_init__(self) -> None:
        if not self.places or {"passage", "passages"} <= self.places or "{passage}" not in self.item:
            msg = (
                f"The prompt {self.text!r} is no prompt: it needs places for {{question}} and {{passage}}, or "
                "{passages} for all of them, and its item one for {passage}."
            )
            raise ValueError(msg)

    @property
    def places(self) -> frozenset[str]:
        """What the text has places for."""
        return frozenset(PLACES.findall(self.text))

    @property
    def question_first(self) -> bool:
        """Whether the passages of a question share all that stands before them, the question included."""
        return 0 <= self.text.find("{question}") < self.text.find("{passage")

    def check_places(self, usual: "Prompt", signal: str) -> None:
        """Refuse, with a ValueError, a prompt that lacks a place for what a signal puts into its usual one."""
        instead = {"passage"} if "passages" in self.places else set()
        missing = sorted(usual.places - self.places - instead)
        if missing:
            msg = f"The prompt {self.text!r} lacks a place for {{{missing[0]}}}, which the signal {signal!r} needs."
            raise ValueError(msg)

    def fingerprint(self, tokenizer: "PreTrainedTokenizerBase | None") -> str:
        """A hash of what a model reads: the prompt, and the tokenizer's chat template."""
        template = getattr(tokenizer, "chat_template", None)
        return fingerprint([asdict(self), template], 16)


ANSWER = Prompt("{passage}\n\nAnswer the question with a few words from the text.\nQuestion: {question}", "\nAnswer: ")
ANSWER_JOINT = Prompt(
    "{passages}Answer the question with a few words from the texts.\nQuestion: {question}", "\nAnswer: "
)
QUESTION = Prompt("{passage}\n\nWrite a question that this text answers.", "\nQuestion: ")
RELEVANCE = Prompt(
    "Here are some paragraphs:\n\n{passages}Please find information that is relevant to the following query in the "
    "paragraphs above.\n\nQuery: {question}"
)
"""In-context re-ranking (arXiv 2410.02642): all passages, the question last."""

RESPONSE = Prompt("{question}", "\n")
FUSION = Prompt("question: {question} context: {passage}")
"""Fusion-in-Decoder: what the encoder reads of each passage. The authors' prompt has a title before the context."""

FUSION_QUESTION = Prompt("Write a question that this text answers. context: {passage}")


def fill(prompt: Prompt, question: str | None, passages: list[str]) -> str:
    """Fill a prompt as plain text, with the cue but without its last space, which goes to what follows."""
    items = "".join(
        prompt.item.replace("{number}", str(number)).replace("{passage}", passage)
        for number, passage in enumerate(passages, start=1)
    )
    content = {"question": (question or "").strip(), "passage": "".join(passages), "passages": items}
    return PLACES.sub(lambda place: content[place[1]], prompt.text) + prompt.cue.rstrip(" ")
