# SPDX-FileCopyrightText: 2026-present haystack-distill contributors
#
# SPDX-License-Identifier: Apache-2.0

"""
Prompts as data, and where question, passages and answer are in them.

A prompt is a text with places. It is filled, put into the model's chat template where it has one, and tokenised whole,
as the model would read it; which tokens belong to which part is found from the tokenizer's offsets.
"""

import hashlib
import json
import re
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

if TYPE_CHECKING:  # labelling and reading need no model library
    from transformers import PreTrainedTokenizerBase

ROOM = 8
"""Tokens that must be left for each passage."""

MAX_PASSAGE_TOKENS = 512

_PLACES = re.compile(r"\{(question|passage|passages)\}")
_MARK = "\ue000{}\ue001"
_MARKS = re.compile("\ue000([a-z]+)\ue001")


class UnscorableError(ValueError):
    """A question, passage or answer that no score can be had for. Labelling sets such rows aside and goes on."""


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
        return frozenset(_PLACES.findall(self.text))

    @property
    def question_first(self) -> bool:
        """Whether the passages of a question share all that stands before them, the question included."""
        return 0 <= self.text.find("{question}") < self.text.find("{passage")

    def fingerprint(self, tokenizer: "PreTrainedTokenizerBase | None") -> str:
        """
        Changes when the text that a model reads changes.

        :param tokenizer: Its chat template counts too.
        """
        template = getattr(tokenizer, "chat_template", None)
        content = json.dumps([asdict(self), template], sort_keys=True, default=str)
        return hashlib.sha256(content.encode()).hexdigest()[:16]


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
"""Fusion-in-Decoder (FiD): what the encoder reads of each passage."""

FUSION_QUESTION = Prompt("Write a question that this text answers. context: {passage}")


class Part(NamedTuple):
    """
    A part of a filled prompt.

    :param kind: `template`, `question`, `passage` or `target`.
    :param number: Which passage.
    :param text: The text.
    """

    kind: str
    number: int
    text: str


@dataclass(frozen=True)
class Encoded:
    """
    A prompt as tokens.

    :param ids: The tokens.
    :param spans: (kind, number) -> positions of its tokens, in order; `("last", 0)` is the last token of all.
    :param cut: Numbers of the passages that were cut to fit.
    :param passages: The passages as they are read.
    """

    ids: list[int]
    spans: dict[tuple[str, int], np.ndarray]
    cut: frozenset[int] = frozenset()
    passages: tuple[str, ...] = ()

    def target(self) -> np.ndarray:
        """Positions of the target's tokens."""
        return self.spans[("target", 0)]

    def places(self) -> list[np.ndarray]:
        """Positions of each passage's tokens."""
        return [self.spans[key] for key in sorted(self.spans) if key[0] == "passage"]


class Encoder:
    """
    Fills prompts and tokenises them within a model's window.

    :param tokenizer: A fast tokenizer.
    :param window: The most tokens the model reads.
    :param max_passage_tokens: Longer passages are cut to this.
    :raises ValueError: If the tokenizer has no offsets.
    """

    def __init__(
        self, tokenizer: "PreTrainedTokenizerBase", window: int, max_passage_tokens: int = MAX_PASSAGE_TOKENS
    ) -> None:
        if not tokenizer.is_fast:
            msg = f"{type(tokenizer).__name__} has no offsets: save the model with a fast tokenizer (tokenizer.json)."
            raise ValueError(msg)
        if max_passage_tokens < 1:
            msg = f"max_passage_tokens must be at least 1, not {max_passage_tokens}."
            raise ValueError(msg)
        self.tokenizer = tokenizer
        self.window = window
        self.max_passage_tokens = max_passage_tokens
        # A special token that is written in a passage must stay text, or a passage could end the prompt.
        special = sorted((token for token in tokenizer.all_special_tokens if len(token) > 1), key=len, reverse=True)
        self._special = re.compile("|".join(map(re.escape, special))) if special else None

    def encode(
        self,
        prompt: Prompt,
        question: str | None,
        passages: list[str],
        target: str | None = None,
        *,
        target_is_passage: bool = False,
    ) -> Encoded:
        """
        Fill a prompt and tokenise it; passages are cut, the rest never.

        :param prompt: The prompt.
        :param question: The question, or the dialogue so far; None leaves its place empty.
        :param passages: One passage, or several where the prompt has a place for them.
        :param target: What the model is asked the likelihood of, after the prompt.
        :param target_is_passage: Whether the target may be cut as a passage is: a response that is to be judged.
        :returns: The tokens and where the parts are.
        :raises UnscorableError: If a part has no tokens, or question and target leave no room for the passages.
        """
        texts = [target or ""] if target_is_passage else passages
        counts = [self._offsets(text) for text in texts]
        allowed = self.max_passage_tokens
        for _ in range(8):
            cut, shortened = self._shorten(texts, counts, allowed)
            read = (passages, shortened[0]) if target_is_passage else (shortened, target)
            ids, spans = self._tokenise(self._parts(prompt, question, *read))
            over = len(ids) - self.window
            if over <= 0:
                return Encoded(ids, spans, cut, tuple(shortened))
            lengths = [min(len(offsets), allowed) for offsets in counts]
            allowed = _fair_share(lengths, sum(lengths) - over)
            if allowed < min(ROOM, max(lengths, default=0)):
                break
        what = "The dialogue" if target_is_passage else "The question"
        msg = (
            f"{what} {_shown(question or target or '')} and what goes with it leave no room for {len(counts)} passages "
            f"in the reader's window of {self.window} tokens: shorten it, give fewer passages, or name a reader with a "
            "longer window."
        )
        raise UnscorableError(msg)

    def _shorten(self, texts: list[str], counts: list[Any], allowed: int) -> tuple[frozenset[int], list[str]]:
        cut = frozenset(number for number, offsets in enumerate(counts) if len(offsets) > allowed)
        return cut, [
            text[: counts[number][allowed - 1][1]] if number in cut else text for number, text in enumerate(texts)
        ]

    def _offsets(self, text: str) -> list[tuple[int, int]]:
        return self.tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)["offset_mapping"]

    def _parts(self, prompt: Prompt, question: str | None, passages: list[str], target: str | None) -> list[Part]:
        """The filled prompt in pieces; content is put in after the chat template, which may strip what it is given."""
        chat = bool(self.tokenizer.chat_template)
        text = _PLACES.sub(lambda place: _MARK.format(place[1]), prompt.text)
        if chat:
            turns = [{"role": "user", "content": text}]
            text = str(self.tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=True))
        else:
            text += prompt.cue.rstrip(" ")
        parts: list[Part] = []
        for number, piece in enumerate(_MARKS.split(text)):
            if number % 2 == 0:
                parts.append(Part("template", 0, piece))
            elif piece == "question":
                parts.append(
                    Part("template" if question is None else "question", 0, self._plain((question or "").strip()))
                )
            elif piece == "passage":
                parts += [Part("passage", n, self._plain(passage)) for n, passage in enumerate(passages)]
            else:
                for n, passage in enumerate(passages):
                    before, after = prompt.item.replace("{number}", str(n + 1)).split("{passage}")
                    parts += [Part("template", 0, before), Part("passage", n, self._plain(passage))]
                    parts.append(Part("template", 0, after))
        if target is not None:
            space = " " if not chat and prompt.cue.endswith(" ") else ""
            parts.append(Part("target", 0, space + self._plain(target.strip())))
        return [part for part in parts if part.text or part.kind != "template"]

    def _plain(self, text: str) -> str:
        return self._special.sub(lambda token: f"{token[0][0]} {token[0][1:]}", text) if self._special else text

    def _tokenise(self, parts: list[Part]) -> tuple[list[int], dict[tuple[str, int], np.ndarray]]:
        chat = bool(self.tokenizer.chat_template)
        encoded = self.tokenizer(
            "".join(part.text for part in parts),
            add_special_tokens=not chat,
            return_offsets_mapping=True,
            truncation=False,
            verbose=False,
        )
        offsets = np.array(encoded["offset_mapping"], dtype=np.int64).reshape(-1, 2)
        spans, start = {}, 0
        for part in parts:
            end = start + len(part.text)
            if part.kind != "template":
                inside = (offsets[:, 0] < end) & (offsets[:, 1] > start) & (offsets[:, 1] > offsets[:, 0])
                spans[(part.kind, part.number)] = np.flatnonzero(inside)
                if not inside.any():
                    what = {"passage": f"Passage {part.number + 1}", "target": "The answer"}.get(part.kind, "The query")
                    msg = f"{what} is empty or has no token that the reader knows: {_shown(part.text)}."
                    raise UnscorableError(msg)
            start = end
        written = np.flatnonzero(offsets[:, 1] > offsets[:, 0])
        spans[("last", 0)] = written[-1:]
        return list(encoded["input_ids"]), spans


def _fair_share(lengths: list[int], room: int) -> int:
    """The longest that passages may be so that together they fit: short ones leave their share to the others."""
    for number, length in enumerate(sorted(lengths)):
        share = room // (len(lengths) - number)
        if length > share:
            return share
        room -= length
    return max(lengths, default=0)


def _shown(text: str) -> str:
    return repr(text if len(text) <= 60 else text[:57] + "...")


def fill(prompt: Prompt, question: str | None, passages: list[str]) -> str:
    """
    Fill a prompt as plain text.

    :param prompt: The prompt.
    :param question: None leaves its place empty.
    :param passages: The passages.
    :returns: The text, with the cue but without its last space, which goes to what follows.
    """
    items = "".join(
        prompt.item.replace("{number}", str(number)).replace("{passage}", passage)
        for number, passage in enumerate(passages, start=1)
    )
    content = {"question": (question or "").strip(), "passage": "".join(passages), "passages": items}
    return _PLACES.sub(lambda place: content[place[1]], prompt.text) + prompt.cue.rstrip(" ")
