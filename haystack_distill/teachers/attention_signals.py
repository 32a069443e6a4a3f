"""
Attention signals: where a reader looks when it answers, or when it reads the question. See `SIGNALS`.

DKRR and Atlas read Fusion-in-Decoder, where a passage's tokens are all of its encoder input. A decoder-only model
reads each passage alone, or, with a prompt that has a place for all of them, all together as the papers' readers do;
the last token of the prompt is the one that decodes first.
"""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from haystack_distill.teachers.heads import Heads
from haystack_distill.teachers.in_context import calibrated_attention
from haystack_distill.teachers.prompts import Prompt, UnscorableError
from haystack_distill.teachers.scores import Candidates, Scored, check_candidates, check_finite, passage_orders
from haystack_distill.teachers.signal_teacher import SignalTeacher, cut_of
from haystack_distill.teachers.signals import ATTENTION, FUSION, SIGNALS, Attention


class AttentionTeacher(SignalTeacher):
    """
    Scores passages by the attention that they get.

    :param reader: A `CausalReader` or a `FusionReader`.
    :param heads: The heads that `heads` reads.
    :param permutations: In how many orders the passages that stand in one prompt are read; the scores are averaged.
    :raises ValueError: If there is no such signal, or reader, prompt or heads don't suit it.
    """

    reads = ATTENTION

    def __init__(
        self,
        reader: Any,
        signal: str,
        prompt: Prompt | None = None,
        *,
        heads: Heads | None = None,
        permutations: int = 1,
        name: str = "",
    ) -> None:
        super().__init__(reader, signal, prompt, name=name)
        if self._how.chosen_heads != (heads is not None):
            msg = "The signal 'heads' needs heads, chosen by select_heads or `haystack-distill heads`; no other does."
            raise ValueError(msg)
        if permutations < 1 or (permutations > 1 and not self._in_one_prompt):
            joint = " and ".join(repr(one.name) for one in SIGNALS.values() if one.passages == "all")
            msg = (
                f"permutations={permutations} does not suit {signal!r}, which reads each passage alone here: several "
                f"orders are read by {joint}, and with a prompt that has a place for {{passages}}."
            )
            raise ValueError(msg)
        if heads is not None:
            heads.check_belongs_to(name, reader.layers)
        if self._in_context and self.prompt.question_first:
            msg = f"{signal!r} reads the attention of the question to the passages: the question must come after them."
            raise ValueError(msg)
        reader.readable()
        self.heads = heads
        self.permutations = permutations

    @property
    def _how(self) -> Attention:
        assert isinstance(self.definition.how, Attention)
        return self.definition.how

    @property
    def _in_context(self) -> bool:
        return self.definition.passages == "all"

    @property
    def _in_one_prompt(self) -> bool:
        """Whether all passages stand in one prompt, where their order may matter; an encoder-decoder has several."""
        return self._reads_together and self.reader.kind != FUSION

    @property
    def identity(self) -> dict[str, Any]:
        """Model, signal, prompt, and what else the scores depend on."""
        heads = self.heads.fingerprint if self.heads else None
        return {**super().identity, "permutations": self.permutations, "heads": heads}

    def score_each(self, rows: Sequence[Candidates]) -> Iterator[tuple[int, Scored | UnscorableError]]:
        """Score the passages of many questions, each as soon as its passages are done."""
        if not self._in_context:
            yield from super().score_each(rows)
            return
        for number, row in enumerate(rows):
            try:
                check_candidates(row, self.signal, answers=self.definition.needs_answers)
                yield number, self._checked(row, self._scored_in_context(row))
            except UnscorableError as error:
                yield number, error

    def _numbers(self, row: Candidates) -> list[list[int]]:
        """Which passages each prompt holds, in their order."""
        if self._reads_together:
            return passage_orders(len(row.passages), self.permutations)
        return [[number] for number in range(len(row.passages))]

    def _prompts(self, row: Candidates) -> list[Any]:
        answers = self.definition.needs_answers
        return [
            self.reader.encode(
                self.prompt,
                row.query,
                [row.passages[number] for number in numbers],
                row.answers[0] if answers else None,
                ended=self.ended,
            )
            for numbers in self._numbers(row)
        ]

    def _read(self, prompts: list[Any]) -> Iterator[tuple[int, list[float]]]:
        """The scores of the passages in each prompt; attention itself is too large to be kept for many."""
        for number, read in self.reader.attention(prompts, (self._how.rows, 0), self._how.kind):
            scores = [self._how.score(read[:, :, tokens].astype(np.float64)) for tokens in prompts[number].places()]
            yield number, scores

    def _scored(self, row: Candidates, prompts: list[Any], values: list[list[float]]) -> Scored:
        numbers = self._numbers(row)
        scores = np.zeros(len(row.passages))
        for held, of_prompt in zip(numbers, values, strict=True):
            scores[held] += of_prompt
        return self._checked(row, Scored(scores / self.permutations, cut_of(numbers, prompts)))

    def _checked(self, row: Candidates, scored: Scored) -> Scored:
        """Where all layers have sliding windows, none may see a passage that is far from the question."""
        scores = scored.scores
        if np.isnan(scores).all() or not scores.any():
            msg = (
                f"No attention reaches the passages of the query {row.query!r}: they lie outside the sliding windows "
                f"of {type(self.reader.model).__name__}. Use a likelihood signal (question, pdist) with it."
            )
            raise UnscorableError(msg)
        check_finite(row, scores)
        return scored

    def _scored_in_context(self, row: Candidates) -> Scored:
        total = np.zeros(len(row.passages))
        cut: frozenset[int] = frozenset()
        orders = passage_orders(len(row.passages), self.permutations)
        for order in orders:
            passages = [row.passages[number] for number in order]
            layers = self.heads.layers if self.heads else None
            attention, prompt = calibrated_attention(
                self.reader, self.prompt, row.query, passages, rows=self._how.rows, kind=self._how.kind, layers=layers
            )
            read = attention if self.heads is None else self.heads.pick(attention)[None]
            for place, number in enumerate(order):
                total[number] += self._how.score(read[:, :, prompt.spans[("item", place)]])
            cut |= {order[place] for place in prompt.cut}
        return Scored(total / len(orders), cut)
