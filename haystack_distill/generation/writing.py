"""What generators are asked to write, as data: instructions, examples, and how they become requests."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass

from haystack_distill.files.runs import fingerprint
from haystack_distill.generation.cleaning import neutral
from haystack_distill.generation.requests import Message, Request, seed_for


@dataclass(frozen=True)
class Example:
    """One of the N shots of a prompt: a source, a good text and, where answers are asked for, the question."""

    source: str
    text: str
    question: str = ""


@dataclass(frozen=True)
class WritingPrompt:
    """
    What is asked for.

    :param text: The user's message, with a place for `{text}`, and one for `{question}` where answers are asked for.
    :param system: Instructions before all; may be empty.
    :param cue: Begins the reply of a model that has no chat template.
    :raises ValueError: If there is no place for the text.
    """

    text: str
    system: str = ""
    cue: str = ""

    def __post_init__(self) -> None:
        if self.text.count("{text}") != 1:
            msg = f"The prompt {self.text!r} needs one place for {{text}}: what is to be written about."
            raise ValueError(msg)

    def fingerprint(self, examples: Sequence[Example] = ()) -> str:
        """A hash of what a model reads: the prompt and its examples."""
        return fingerprint([asdict(self), [asdict(example) for example in examples]], 16)

    def request(
        self,
        request_id: str,
        turns: Sequence[str],
        *,
        count: int,
        seed: int,
        question: str | None = None,
        examples: Sequence[Example] = (),
    ) -> Request:
        """Ask for texts about a passage, or the turns of a dialogue, oldest first; they are neutralised."""
        before, after = self._around(question)
        head = [Message("system", self.system)] if self.system else []
        for example in examples:
            first, last = self._around(example.question)
            head += [Message("user", f"{first}{example.source}{last}"), Message("assistant", example.text)]
        return Request(
            id=request_id,
            turns=tuple(neutral(turn) for turn in turns),
            seeds=tuple(seed_for(seed, request_id, number) for number in range(count)),
            head=tuple(head),
            before=before,
            after=after,
            cue=self.cue,
        )

    def _around(self, question: str | None) -> list[str]:
        """What stands before and after the text."""
        return [part.replace("{question}", neutral(question or "")) for part in self.text.split("{text}")]


QUESTIONS = WritingPrompt(
    "Text: {text}\n\nWrite one question that this text answers. Name what the question is about, so that it can be "
    "understood without the text. Write nothing but the question.",
    cue="Question:",
)
ANSWERS = WritingPrompt(
    "Text: {text}\n\nAnswer the question with a few words from the text. Write nothing but the answer.\n"
    "Question: {question}",
    cue="Answer:",
)
CLOSED_BOOK = WritingPrompt(
    "{text}\n\nAnswer this question with a few words. Write nothing but the answer.", cue="Answer:"
)
"""For questions that come without any passage."""

RESPONSES = WritingPrompt(
    "{text}", system="You are in a casual conversation with a friend. Reply in one or two short sentences.", cue="B:"
)

PROMPTS = {"questions": QUESTIONS, "answers": ANSWERS, "responses": RESPONSES}

QUESTION_EXAMPLES = (
    Example(
        "The lighthouse on Hook Head was built around 1210 by William Marshal, who wanted ships to find their way to "
        "his port of New Ross. Monks kept its fire burning until 1641.",
        "Who had the lighthouse on Hook Head built?",
    ),
    Example(
        "To change the water filter of the KM-200, switch the machine off, turn the cover to the left and pull the old "
        "filter out. A filter lasts for about 300 litres.",
        "How long does a water filter of the KM-200 last?",
    ),
    Example(
        "Bread made with sourdough stays fresh longer because the acids that its bacteria make slow down the growth of "
        "mould.",
        "Why does sourdough bread keep longer than other bread?",
    ),
)
"""Shown where the user gives no examples: small models follow an example better than an instruction."""


@dataclass(frozen=True)
class Order:
    """How texts are asked for, whatever they are about."""

    prompt: WritingPrompt
    examples: tuple[Example, ...]
    count: int
    seed: int

    def request(self, request_id: str, turns: Sequence[str], question: str | None = None) -> Request:
        """Ask for texts about a source."""
        return self.prompt.request(
            request_id, turns, count=self.count, seed=self.seed, question=question, examples=self.examples
        )

    @property
    def prompt_hash(self) -> str:
        """The hash of the prompt with its examples."""
        return self.prompt.fingerprint(self.examples)


def order_of(
    mode: str,
    prompt: str | dict[str, str] | None,
    examples: Sequence[dict[str, str]] | None,
    *,
    count: int,
    seed: int,
) -> Order:
    """
    Put an order together out of what a user gives.

    :param mode: `questions`, `answers` or `responses`.
    :param prompt: The text of a prompt, or its parts; None takes the mode's own.
    :param examples: With `source` and `text`; None takes the mode's own, an empty list none.
    :raises ValueError: If the prompt or an example lacks a part.
    """
    own = PROMPTS[mode]
    try:
        chosen = own if prompt is None else WritingPrompt(**({"text": prompt} if isinstance(prompt, str) else prompt))
        default = QUESTION_EXAMPLES if mode == "questions" else ()
        shown = default if examples is None else tuple(Example(**example) for example in examples)
    except TypeError as error:
        msg = f"A prompt has text, system and cue, and an example source and text: {error}."
        raise ValueError(msg) from error
    if mode == "answers" and "{question}" not in chosen.text:
        msg = f"The prompt {chosen.text!r} lacks a place for {{question}}: what is to be answered."
        raise ValueError(msg)
    return Order(chosen, shown, count, seed)


def expects_mark(examples: Sequence[dict[str, str]] | None) -> bool:
    """Whether questions should end with a question mark: not if the user's own examples do not."""
    return not examples or all(example.get("text", "").rstrip().endswith(("?", "？", "؟")) for example in examples)
