"""Likelihood signals: what a passage does to the likelihood of a text that goes with it. See `SIGNALS`."""

from collections.abc import Iterator
from typing import Any

import numpy as np

from haystack_distill.teachers.scores import Candidates, Scored, check_finite
from haystack_distill.teachers.signal_teacher import SignalTeacher, cut_of
from haystack_distill.teachers.signals import LIKELIHOOD, Likelihood


class LikelihoodTeacher(SignalTeacher):
    """Scores passages by the likelihood of a text; the reader may be of any kind. See `SignalTeacher`."""

    reads = LIKELIHOOD

    @property
    def _how(self) -> Likelihood:
        assert isinstance(self.definition.how, Likelihood)
        return self.definition.how

    def _prompts(self, row: Candidates) -> list[Any]:
        return [
            self.reader.encode(self.prompt, ask.question, [], row.passages[ask.numbers[0]], target_is_passage=True)
            if ask.target is None
            else self.reader.encode(
                self.prompt,
                ask.question,
                [row.passages[number] for number in ask.numbers],
                ask.target,
                ended=self.ended,
            )
            for ask in self._how.asks(row)
        ]

    def _read(self, prompts: list[Any]) -> Iterator[tuple[int, np.ndarray]]:
        return self.reader.log_likelihoods(prompts)

    def _scored(self, row: Candidates, prompts: list[Any], values: list[np.ndarray]) -> Scored:
        numbers = [ask.numbers for ask in self._how.asks(row)]
        return Scored(check_finite(row, self._how.scores(values)), cut_of(numbers, prompts))
