"""
All signals, one row each: what a teacher reads out of a reader, and how it becomes the score of a passage.

The teachers, the command line, the messages, the tests and the table of docs/teachers.md are made from `SIGNALS`.
An encoder-decoder reads an answer together with the token that ends it, as Atlas does. All else is read without one.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from haystack_distill.teachers import prompts as default
from haystack_distill.teachers.prompts import Prompt, UnscorableError
from haystack_distill.teachers.scores import Candidates

CAUSAL, FUSION, SERVER = "causal", "encoder-decoder", "server"
"""The kinds of readers: decoder-only models, encoder-decoders as Fusion-in-Decoder, models behind a server."""

LIKELIHOOD, ATTENTION = "likelihood", "attention"
ATLAS_TOKENS = 256
"""Atlas divides its attention by this constant."""


class Ask(NamedTuple):
    """
    One prompt of a likelihood signal.

    :param question: What stands in the question's place; None leaves it empty.
    :param numbers: Which passages stand in the prompt.
    :param target: The text whose likelihood is asked for; None asks for the passage itself, which then stands there.
    """

    question: str | None
    numbers: tuple[int, ...]
    target: str | None


@dataclass(frozen=True)
class Likelihood:
    """
    A score made of log-likelihoods.

    :param asks: Makes the prompts of a question.
    :param scores: Log-likelihoods of the target's tokens of each prompt -> `[passages]`.
    """

    asks: Callable[[Candidates], list[Ask]]
    scores: Callable[[list[np.ndarray]], np.ndarray]


@dataclass(frozen=True)
class Attention:
    """
    A score made of attention.

    :param rows: The part of the prompt whose tokens attend: `last`, `target` or `request`, see `Encoded.spans`.
    :param kind: What of the attention is read, see `Capture`.
    :param score: `[layers, heads, tokens]` of one passage, the mean over the attending tokens -> its score.
    :param chosen_heads: Whether only chosen heads are read.
    """

    rows: str
    kind: str
    score: Callable[[np.ndarray], float]
    chosen_heads: bool = False


@dataclass(frozen=True)
class Signal:
    """
    One signal.

    :param name: Its name wherever one is asked for.
    :param score: What the score of a passage is, in one line.
    :param passages: How many passages stand in one prompt: `one`, `all`, `all but one` or `none`. An encoder-decoder
        puts each passage into an encoder input of its own, and attention reads all of these together.
    :param prompts: Kind of reader -> the prompt that it reads if no other is given. Other kinds don't have the signal.
    :param how: What is read, and how it becomes a score.
    :param needs_answers: Whether questions must have answers; the first one is read.
    :param revision: Counts up when the scores change, so that old and new scores are never mixed in one training set.
    """

    name: str
    score: str
    paper: str
    passages: str
    prompts: Mapping[str, Prompt]
    how: Likelihood | Attention
    needs_answers: bool = False
    revision: int = 1

    @property
    def reads(self) -> str:
        """`likelihood` or `attention`."""
        return LIKELIHOOD if isinstance(self.how, Likelihood) else ATTENTION

    @property
    def asks_for_answer(self) -> bool:
        """Whether its prompt asks for an answer, so that a reader can be taught to give one."""
        return self.prompts[CAUSAL] in {default.ANSWER, default.ANSWER_JOINT}

    def prompt_for(self, kind: str) -> Prompt:
        """The prompt of a kind of reader; a ValueError if such readers don't have this signal."""
        if kind not in self.prompts:
            others = [one.name for one in SIGNALS.values() if one.reads == self.reads and kind in one.prompts]
            others = others or [one.name for one in SIGNALS.values() if kind in one.prompts]
            msg = (
                f"The signal {self.name!r} is read out of a {' or '.join(self.prompts)} reader, and this one is of the "
                f"kind {kind!r}, which has {', '.join(map(repr, others))}."
            )
            raise ValueError(msg)
        return self.prompts[kind]


def signal_named(name: str, reads: str | None = None) -> Signal:
    """Look a signal up; a ValueError if there is none, or it does not read what is wanted (likelihood or attention)."""
    if name not in SIGNALS:
        msg = f"There is no signal {name!r}: choose one of {', '.join(SIGNALS)}."
        raise ValueError(msg)
    signal = SIGNALS[name]
    if reads not in {None, signal.reads}:
        suitable = ", ".join(one.name for one in SIGNALS.values() if one.reads == reads)
        scorer = f"Teacher{signal.reads.title()}Scorer"
        msg = f"The signal {name!r} reads {signal.reads}, not {reads}: take {scorer} for it, or one of {suitable}."
        raise ValueError(msg)
    return signal


def _for_each(row: Candidates, question: str | None, target: str | None) -> list[Ask]:
    return [Ask(question, (number,), target) for number in range(len(row.passages))]


def _without_each(row: Candidates) -> list[Ask]:
    numbers = range(len(row.passages))
    if len(numbers) < 2:
        msg = f"The signal 'loop' leaves one passage out, and the query {row.query!r} has only one."
        raise UnscorableError(msg)
    return [Ask(row.query, tuple(one for one in numbers if one != left_out), row.answers[0]) for left_out in numbers]


def _means(values: list[np.ndarray]) -> np.ndarray:
    return np.array([tokens.mean() for tokens in values], dtype=np.float64)


def _sums(values: list[np.ndarray]) -> np.ndarray:
    return np.array([tokens.sum() for tokens in values], dtype=np.float64)


def _mean_of_seen(read: np.ndarray) -> float:
    """Scores before the softmax are NaN where a sliding window hides a token."""
    return float(np.nanmean(read)) if np.isfinite(read).any() else float("nan")


def _atlas_sum(read: np.ndarray) -> float:
    return float(read.mean(1).sum() / (ATLAS_TOKENS * len(read)))


def _sum_without_outliers(read: np.ndarray) -> float:
    return float(without_outliers(read.sum((0, 1))).sum())


def without_outliers(values: np.ndarray) -> np.ndarray:
    """Leave out the tokens of a passage that lose much attention to a question: below mean - 2 standard deviations."""
    return values if len(values) < 2 else values[values >= values.mean() - 2 * values.std(ddof=1)]


_QUESTION = Likelihood(lambda row: _for_each(row, None, row.query), _means)
_ANSWER = Likelihood(lambda row: _for_each(row, row.query, row.answers[0]), _means)
_ANSWER_SUM = Likelihood(_ANSWER.asks, _sums)
_LEFT_OUT = Likelihood(_without_each, lambda values: -_means(values))
_RESPONSE = Likelihood(lambda row: _for_each(row, row.query, None), _means)
_MORE_THAN_ALONE = Likelihood(
    lambda row: _for_each(row, row.query, None) + _for_each(row, None, None),
    lambda values: np.subtract(*np.split(_means(values), 2)),
)
_MORE_IN_ALL = Likelihood(_MORE_THAN_ALONE.asks, lambda values: np.subtract(*np.split(_sums(values), 2)))
_FIRST_STEP = Attention("last", "scores", _mean_of_seen)
_FROM_ANSWER = Attention("target", "value_norm", _atlas_sum)
_IN_CONTEXT = Attention("request", "attention", _sum_without_outliers)
_CHOSEN_HEADS = Attention("request", "attention", _sum_without_outliers, chosen_heads=True)

_ASK_QUESTION = {CAUSAL: default.QUESTION, FUSION: default.FUSION_QUESTION, SERVER: default.QUESTION}
_ASK_ANSWER = {CAUSAL: default.ANSWER, FUSION: default.FUSION, SERVER: default.ANSWER}
_ASK_JOINTLY = {CAUSAL: default.ANSWER_JOINT, FUSION: default.FUSION, SERVER: default.ANSWER_JOINT}
_ASK_RESPONSE = dict.fromkeys((CAUSAL, FUSION, SERVER), default.RESPONSE)
_LOOK_FOR_ANSWER = {CAUSAL: default.ANSWER, FUSION: default.FUSION}
_LOOK_IN_CONTEXT = {CAUSAL: default.RELEVANCE}

# fmt: off
SIGNALS: dict[str, Signal] = {signal.name: signal for signal in (
    Signal("question", "log p(question given passage), mean over tokens",
           "UPR, arXiv 2204.07496", "one", _ASK_QUESTION, _QUESTION),
    Signal("pdist", "log p(answer given question and passage), mean over tokens",
           "Atlas, arXiv 2208.03299", "one", _ASK_ANSWER, _ANSWER, needs_answers=True),
    Signal("emdr2", "log p(answer given question and passage), summed over tokens: the term of EMDR2's loss",
           "EMDR2, arXiv 2106.05346", "one", _ASK_ANSWER, _ANSWER_SUM, needs_answers=True),
    Signal("loop", "minus log p(answer given question and all other passages), mean over tokens",
           "Atlas, arXiv 2208.03299", "all but one", _ASK_JOINTLY, _LEFT_OUT, needs_answers=True),
    Signal("response", "log p(response given dialogue), mean over tokens",
           "G2R, arXiv 2108.12582", "none", _ASK_RESPONSE, _RESPONSE),
    Signal("mi", "log p(response given dialogue) minus log p(response), mean over tokens",
           "G2R, arXiv 2108.12582", "none", _ASK_RESPONSE, _MORE_THAN_ALONE),
    Signal("pmi", "log p(response given dialogue) minus log p(response), summed over tokens",
           "pointwise mutual information", "none", _ASK_RESPONSE, _MORE_IN_ALL),
    Signal("dkrr", "scores before the softmax from the first decoding step, mean over layers, heads and tokens",
           "DKRR, arXiv 2012.04584", "one", _LOOK_FOR_ANSWER, _FIRST_STEP),
    Signal("adist", "attention times value norm from the answer, mean over heads, summed over layers and tokens",
           "Atlas, arXiv 2208.03299", "one", _LOOK_FOR_ANSWER, _FROM_ANSWER, needs_answers=True),
    Signal("icr", 'attention from all that follows the passages, minus that of the question "N/A", without outliers',
           "ICR, arXiv 2410.02642", "all", _LOOK_IN_CONTEXT, _IN_CONTEXT, revision=2),
    Signal("heads", "as icr, from the few heads that find evidence",
           "CoRe, arXiv 2510.02219", "all", _LOOK_IN_CONTEXT, _CHOSEN_HEADS, revision=2),
)}
# fmt: on
