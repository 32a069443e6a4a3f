"""What both teachers do: they put a signal to a reader, and know what their scores depend on."""

from collections.abc import Iterator, Sequence
from typing import Any, ClassVar

from haystack_distill.teachers.prompts import Prompt, UnscorableError
from haystack_distill.teachers.scores import (
    ROWS_AT_ONCE,
    ROWS_THAT_SHARE,
    Candidates,
    Scored,
    check_candidates,
    in_order,
    score_by_row,
)
from haystack_distill.teachers.signals import ATTENTION, FUSION, signal_named


class SignalTeacher:
    """
    Scores passages by a signal of a reader.

    :param signal: The name of a signal that this teacher reads, see `SIGNALS`.
    :param name: The model's name, for the identity.
    :raises ValueError: If there is no such signal, or reader or prompt don't suit it.
    """

    reads: ClassVar[str]

    def __init__(self, reader: Any, signal: str, prompt: Prompt | None = None, *, name: str = "") -> None:
        self.definition = signal_named(signal, self.reads)
        usual = self.definition.prompt_for(reader.kind)
        self.reader = reader
        self.signal = signal
        self.prompt = prompt or usual
        self.prompt.check_places(usual, signal)
        self.name = name

    @property
    def ended(self) -> bool:
        """
        Whether an answer is read with the token that ends it.

        Atlas does so, with encoder-decoders that were trained on short answers. A chat model goes on after an answer
        that is short and right, so that its end token says little about the passage.
        """
        return self.definition.needs_answers and self.reader.kind == FUSION

    @property
    def _reads_together(self) -> bool:
        """Whether attention to all passages of a question is read at once."""
        return self.reads == ATTENTION and (self.reader.kind == FUSION or "passages" in self.prompt.places)

    @property
    def rows_at_once(self) -> int:
        """How many questions it likes at a time: a passage that was found for several of them is read once."""
        alone = self.definition.passages == "one" and not self._reads_together
        return ROWS_THAT_SHARE if alone and not self.prompt.question_first else ROWS_AT_ONCE

    @property
    def identity(self) -> dict[str, Any]:
        """Model, signal and prompt."""
        revision = self.definition.revision
        return {
            "model": self.name,
            "signal": self.signal,
            "prompt": self.prompt.fingerprint(self.reader.tokenizer),
            "max_passage_tokens": self.reader.max_passage_tokens,
            **({"revision": revision} if revision > 1 else {}),
            **({"ended": True} if self.ended else {}),
        }

    def score(self, rows: Sequence[Candidates]) -> list[Scored]:
        """Score the passages of several questions; an UnscorableError if one of these can't be scored."""
        return in_order(self.score_each(rows))

    def score_each(self, rows: Sequence[Candidates]) -> Iterator[tuple[int, Scored | UnscorableError]]:
        """Score the passages of many questions, each as soon as its passages are done; prompts of all share batches."""
        return score_by_row(rows, self._checked_prompts, self._read, self._scored)

    def _checked_prompts(self, row: Candidates) -> list[Any]:
        check_candidates(row, self.signal, answers=self.definition.needs_answers)
        return self._prompts(row)

    def _prompts(self, row: Candidates) -> list[Any]:
        raise NotImplementedError

    def _read(self, prompts: list[Any]) -> Iterator[tuple[int, Any]]:
        raise NotImplementedError

    def _scored(self, row: Candidates, prompts: list[Any], values: list[Any]) -> Scored:
        raise NotImplementedError


def cut_of(numbers: Sequence[Sequence[int]], prompts: Sequence[Any]) -> frozenset[int]:
    """Which passages of a question were cut; `numbers` says which of them each prompt reads."""
    return frozenset(held[place] for held, prompt in zip(numbers, prompts, strict=True) for place in prompt.cut)
