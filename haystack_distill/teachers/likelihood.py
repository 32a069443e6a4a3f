# SPDX-FileCopyrightText: 2026-present haystack-distill contributors
#
# SPDX-License-Identifier: Apache-2.0

"""
Likelihood signals: what a passage does to the likelihood of a text that goes with it.

Equations in the order of `SIGNALS`, with a the answer, q the question, d a passage, D all of them, c a dialogue and r a
response; |x| counts tokens:

- `pdist` (Atlas, arXiv 2208.03299, section 2.2): log p(a | q, d) / |a|
- `emdr2` (arXiv 2106.05346, and Atlas): log p(a | q, d), the term of log sum_d p(a | q, d) p(d | q)
- `loop` (Atlas): -log p(a | q, D without d) / |a|
- `question` (UPR, arXiv 2204.07496): log p(q | d) / |q|
- `response` (G2R, arXiv 2108.12582): log p(r | c) / |r|
- `mi` (G2R): (log p(r | c) - log p(r)) / |r|
"""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from haystack_distill.teachers.prompts import Prompt, UnscorableError
from haystack_distill.teachers.scores import (
    ROWS_AT_ONCE,
    ROWS_THAT_SHARE,
    Candidates,
    Reader,
    Scored,
    check_candidates,
    check_finite,
    cut_of,
    in_order,
    score_by_row,
)

SIGNALS = ("pdist", "emdr2", "loop", "question", "response", "mi")
NEED_ANSWERS = frozenset({"pdist", "emdr2", "loop"})


class LikelihoodTeacher:
    """
    Scores passages by the likelihood of a text.

    :param reader: The model.
    :param signal: One of `SIGNALS`.
    :param prompt: None takes the signal's own.
    :param name: Of the model, for the identity.
    :raises ValueError: If there is no such signal, or the prompt does not suit it.
    """

    def __init__(self, reader: Reader, signal: str, prompt: Prompt | None = None, *, name: str = "") -> None:
        if signal not in SIGNALS:
            msg = f"There is no likelihood signal {signal!r}: choose one of {', '.join(SIGNALS)}."
            raise ValueError(msg)
        self.reader = reader
        self.signal = signal
        self.prompt = prompt or reader.prompts[signal]
        check_places(self.prompt, reader.prompts[signal], signal)
        self.name = name

    @property
    def rows_at_once(self) -> int:
        """How many questions it likes at a time: a passage that was found for several of them is read once."""
        shares = self.signal in {"pdist", "emdr2", "question"}
        return ROWS_THAT_SHARE if shares and not self.prompt.question_first else ROWS_AT_ONCE

    @property
    def identity(self) -> dict[str, Any]:
        """Model, signal and prompt."""
        return {
            "model": self.name,
            "signal": self.signal,
            "prompt": self.prompt.fingerprint(self.reader.tokenizer),
            "max_passage_tokens": self.reader.max_passage_tokens,
        }

    def score(self, rows: Sequence[Candidates]) -> list[Scored]:
        """
        Score the passages of several questions.

        :param rows: The questions.
        :returns: One for each row.
        :raises UnscorableError: If a row can't be scored.
        """
        return in_order(self.score_each(rows))

    def score_each(self, rows: Sequence[Candidates]) -> Iterator[tuple[int, Scored | UnscorableError]]:
        """
        Score the passages of many questions, each as soon as its passages are done; prompts of all rows share batches.

        :param rows: The questions.
        :returns: The number of each row, and its scores or why it has none.
        """
        return score_by_row(rows, self._prompts, self.reader.log_likelihoods, self._scored)

    def _scored(self, row: Candidates, prompts: list[Any], values: list[np.ndarray]) -> Scored:
        return Scored(check_finite(row, self._scores(values, len(row.passages))), self._cut(prompts))

    def _prompts(self, row: Candidates) -> list[Any]:
        check_candidates(row, self.signal, answers=self.signal in NEED_ANSWERS)
        encode = self.reader.encode
        if self.signal in {"pdist", "emdr2"}:
            return [encode(self.prompt, row.query, [passage], row.answers[0]) for passage in row.passages]
        if self.signal == "question":
            return [encode(self.prompt, None, [passage], row.query) for passage in row.passages]
        if self.signal == "loop":
            if len(row.passages) < 2:
                msg = f"The signal 'loop' leaves one passage out, and the query {row.query!r} has only one."
                raise UnscorableError(msg)
            others = [row.passages[:number] + row.passages[number + 1 :] for number in range(len(row.passages))]
            return [encode(self.prompt, row.query, passages, row.answers[0]) for passages in others]
        contexts = [row.query] if self.signal == "response" else [row.query, None]
        return [
            encode(self.prompt, context, [], passage, target_is_passage=True)
            for context in contexts
            for passage in row.passages
        ]

    def _scores(self, values: list[np.ndarray], passages: int) -> np.ndarray:
        means = np.array([one.mean() for one in values], dtype=np.float64)
        if self.signal == "emdr2":
            return np.array([one.sum() for one in values], dtype=np.float64)
        if self.signal == "loop":
            return -means
        return means[:passages] - means[passages:] if self.signal == "mi" else means

    def _cut(self, prompts: list[Any]) -> frozenset[int]:
        if self.signal == "loop":
            # The passage that is left out does not count in its own prompt.
            return frozenset(
                number + (number >= left_out) for left_out, prompt in enumerate(prompts) for number in prompt.cut
            )
        own = prompts[: len(prompts) // 2] if self.signal == "mi" else prompts
        return cut_of(own)


def check_places(prompt: Prompt, usual: Prompt, signal: str) -> None:
    """
    Refuse a prompt that lacks a place for what the signal puts into it.

    :param prompt: The prompt.
    :param usual: The signal's own prompt, which has the places.
    :param signal: The signal.
    :raises ValueError: If a place is missing.
    """
    missing = sorted(usual.places - prompt.places)
    if missing:
        msg = f"The prompt {prompt.text!r} lacks a place for {{{missing[0]}}}, which the signal {signal!r} needs."
        raise ValueError(msg)
