"""
Filled prompts as tokens, and where question, passages and answer are in them.

A prompt is filled, put into the model's chat template where it has one, and tokenised whole, as the model would read
it. Which tokens belong to which part follows from the tokenizer's offsets.
"""

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from haystack_distill.teachers.control_tokens import broken, control_tokens, end_of_answer
from haystack_distill.teachers.prompts import PLACES, Prompt, UnscorableError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

ROOM = 8
"""Tokens that must be left for each passage."""

MAX_PASSAGE_TOKENS = 512

Span = tuple[str, int]
"""A part of a prompt and its number, see `Encoded`."""

_MARK = "\ue000{}\ue001"
_MARKS = re.compile("\ue000([a-z]+)\ue001")


class Piece(NamedTuple):
    """A text in a filled prompt, and the parts that it belongs to."""

    text: str
    spans: tuple[Span, ...] = ()


@dataclass(frozen=True)
class Encoded:
    """
    A prompt as tokens.

    :param spans: Part and number -> positions of its tokens, in order: `question`, `target` and each `passage`; where
        all passages stand in one prompt, each `item` (the passage with its number) and the `request` (all that follows
        the passages, to the end of the prompt); and `last`, the last token of all.
    """

    ids: list[int]
    spans: dict[Span, np.ndarray]
    cut: frozenset[int] = frozenset()
    passages: tuple[str, ...] = ()

    def target(self) -> np.ndarray:
        """Positions of the target's tokens."""
        return self.spans[("target", 0)]

    def places(self) -> list[np.ndarray]:
        """Positions of each passage's tokens."""
        return [self.spans[key] for key in sorted(self.spans) if key[0] == "passage"]


class PromptEncoder:
    """Fills prompts and tokenises them within a model's window; a ValueError if the tokenizer has no offsets."""

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
        self.end = end_of_answer(tokenizer)
        self._control = control_tokens(tokenizer)

    def encode(
        self,
        prompt: Prompt,
        question: str | None,
        passages: list[str],
        target: str | None = None,
        *,
        target_is_passage: bool = False,
        ended: bool = False,
    ) -> Encoded:
        """
        Fill a prompt and tokenise it. Passages are cut where they don't fit, the rest never.

        :param question: The question, or the dialogue so far; None leaves its place empty.
        :param passages: One passage, or several where the prompt has a place for them.
        :param target: What the model is asked the likelihood of, after the prompt.
        :param target_is_passage: Whether the target may be cut as a passage is: a response that is to be judged.
        :param ended: Whether the target has the token that ends an answer as its last one.
        :raises UnscorableError: If a part has no tokens, or question and target leave no room for the passages.
        """
        texts = [target or ""] if target_is_passage else passages
        counts = [self._offsets(text) for text in texts]
        allowed = self.max_passage_tokens
        least = min(ROOM, max((min(len(offsets), allowed) for offsets in counts), default=1))
        while allowed >= least:
            cut, shortened = _shortened(texts, counts, allowed)
            read = (passages, shortened[0]) if target_is_passage else (shortened, target)
            ids, spans = self._tokenised(self._pieces(prompt, question, *read))
            if ended and self.end is not None:
                last = int(spans[("target", 0)][-1]) + 1
                ids, spans[("target", 0)] = [*ids[:last], self.end], np.append(spans[("target", 0)], last)
            over = len(ids) - self.window
            if over <= 0:
                return Encoded(ids, spans, cut, tuple(shortened))
            # What is cut is tokenised anew and can have more tokens than were left to it, so this may need some turns.
            lengths = [min(len(offsets), allowed) for offsets in counts]
            allowed = min(allowed - 1, _fair_share(lengths, sum(lengths) - over))
        what = "The dialogue" if target_is_passage else "The question"
        msg = (
            f"{what} {_shown(question or target or '')} and what goes with it leave no room for {len(counts)} passages "
            f"in the reader's window of {self.window} tokens: shorten it, give fewer passages, or name a reader with a "
            "longer window."
        )
        raise UnscorableError(msg)

    def plain(self, text: str) -> str:
        """A text whose control tokens are broken up: one that stands in a passage must not end the prompt."""
        return broken(text, self._control)

    def _offsets(self, text: str) -> list[tuple[int, int]]:
        return self.tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)["offset_mapping"]

    def _pieces(self, prompt: Prompt, question: str | None, passages: list[str], target: str | None) -> list[Piece]:
        """The filled prompt. Content is put in after the chat template, which may strip what it is given."""
        chat = bool(self.tokenizer.chat_template)
        text = PLACES.sub(lambda place: _MARK.format(place[1]), prompt.text)
        if chat:
            turns = [{"role": "user", "content": text}]
            text = str(self.tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=True))
        else:
            text += prompt.cue.rstrip(" ")
        pieces: list[Piece] = []
        request: tuple[Span, ...] = ()
        for number, part in enumerate(_MARKS.split(text)):
            if number % 2 == 0:
                pieces.append(Piece(part, request))
            elif part == "question":
                spans = () if question is None else (("question", 0),)
                pieces.append(Piece(self.plain((question or "").strip()), (*spans, *request)))
            elif part == "passage":
                pieces += [Piece(self.plain(passage), (("passage", n),)) for n, passage in enumerate(passages)]
            else:
                for n, passage in enumerate(passages):
                    before, after = prompt.item.replace("{number}", str(n + 1)).split("{passage}")
                    pieces.append(Piece(before, (("item", n),)))
                    pieces.append(Piece(self.plain(passage), (("passage", n), ("item", n))))
                    pieces.append(Piece(after))
                request = (("request", 0),)
        if target is not None:
            space = " " if not chat and prompt.cue.endswith(" ") else ""
            pieces.append(Piece(space + self.plain(target.strip()), (("target", 0),)))
        return pieces

    def _tokenised(self, pieces: list[Piece]) -> tuple[list[int], dict[Span, np.ndarray]]:
        encoded = self.tokenizer(
            "".join(piece.text for piece in pieces),
            add_special_tokens=not self.tokenizer.chat_template,
            return_offsets_mapping=True,
            truncation=False,
            verbose=False,
        )
        offsets = np.array(encoded["offset_mapping"], dtype=np.int64).reshape(-1, 2)
        written = offsets[:, 1] > offsets[:, 0]
        inside: dict[Span, np.ndarray] = {}
        start = 0
        for piece in pieces:
            end = start + len(piece.text)
            tokens = written & (offsets[:, 0] < end) & (offsets[:, 1] > start)
            for span in piece.spans:
                if span[0] in _NAMES and not tokens.any():
                    what = _NAMES[span[0]].format(span[1] + 1)
                    msg = f"{what} is empty or has no token that the reader knows: {_shown(piece.text)}."
                    raise UnscorableError(msg)
                inside[span] = inside.get(span, np.zeros_like(tokens)) | tokens
            start = end
        spans = {span: np.flatnonzero(tokens) for span, tokens in inside.items()}
        return list(encoded["input_ids"]), {**spans, ("last", 0): np.flatnonzero(written)[-1:]}


_NAMES = {"passage": "Passage {}", "target": "The answer", "question": "The query"}


def _shortened(texts: list[str], counts: list[Any], allowed: int) -> tuple[frozenset[int], list[str]]:
    cut = frozenset(number for number, offsets in enumerate(counts) if len(offsets) > allowed)
    return cut, [text[: counts[number][allowed - 1][1]] if number in cut else text for number, text in enumerate(texts)]


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
