"""What goes into a teacher and what comes out, whichever teacher it is."""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np

from haystack_distill.teachers.prompts import UnscorableError

ROWS_AT_ONCE, ROWS_THAT_SHARE = 4, 1000
"""Questions scored together; and where a passage that was found for several of them is read once."""


@dataclass(frozen=True)
class Candidates:
    """A question (or a dialogue so far), passages to score for it, and answers; likelihoods are asked of the first."""

    query: str
    passages: list[str]
    answers: list[str]


@dataclass(frozen=True)
class Scored:
    """
    Scores of passages, the higher the better.

    :param cut: The numbers of those that were too long to be read whole.
    :param usage: What was paid for them, where somebody counts: calls and tokens by kind.
    """

    scores: np.ndarray
    cut: frozenset[int] = frozenset()
    usage: dict[str, int] = field(default_factory=dict)


def total_usage(usages: Iterable[Mapping[str, int]]) -> dict[str, int]:
    """What was paid in all, by kind."""
    total: Counter[str] = Counter()
    for usage in usages:
        total.update(usage)
    return dict(total)


class Teacher(Protocol):
    """Scores passages."""

    @property
    def identity(self) -> dict[str, Any]:
        """What its scores depend on: scores of teachers that differ in this are never mixed."""

    def score(self, rows: Sequence[Candidates]) -> list[Scored]:
        """Score the passages of several questions; an UnscorableError if one of these can't be scored."""


def check_candidates(row: Candidates, signal: str, *, answers: bool) -> None:
    """Refuse, with an UnscorableError, an empty question or passage, and a needed answer that is missing."""
    if not row.query.strip():
        msg = "The query is empty: there is nothing to score passages for."
        raise UnscorableError(msg)
    if not row.passages:
        msg = f"There is no passage to score for the query {row.query!r}."
        raise UnscorableError(msg)
    empty = [number for number, passage in enumerate(row.passages, start=1) if not passage.strip()]
    if empty:
        msg = f"Passage {empty[0]} of the query {row.query!r} is empty: remove documents without text."
        raise UnscorableError(msg)
    if answers and not any(answer.strip() for answer in row.answers[:1]):
        msg = (
            f"The signal {signal!r} needs an answer and the query {row.query!r} has none: give answers, or use "
            "'question', which needs none."
        )
        raise UnscorableError(msg)


def check_finite(row: Candidates, scores: np.ndarray) -> np.ndarray:
    """Refuse, with an UnscorableError, scores that are NaN or infinite."""
    wrong = np.flatnonzero(~np.isfinite(scores))
    if len(wrong):
        msg = (
            f"The score of passage {wrong[0] + 1} of the query {row.query!r} is {scores[wrong[0]]}, not a number: try "
            "dtype='float32', or look at the model's weights."
        )
        raise UnscorableError(msg)
    return scores


def passage_orders(passages: int, count: int) -> list[list[int]]:
    """The orders in which passages are read, the same each time: as they come, backwards, then at random."""
    random = np.random.default_rng(0)
    orders = [list(range(passages)), list(range(passages))[::-1]]
    orders += [random.permutation(passages).tolist() for _ in range(count - 2)]
    return orders[:count]


def score_by_row(
    rows: Sequence[Candidates],
    prompts_of: Callable[[Candidates], list[Any]],
    read: Callable[[list[Any]], Iterator[tuple[int, Any]]],
    scored: Callable[[Candidates, list[Any], list[Any]], Scored],
) -> Iterator[tuple[int, Scored | UnscorableError]]:
    """
    Score many questions whose prompts are read together, each as soon as all of its own are read.

    :param read: Reads the prompts of all questions: the number of each prompt and what was read, in any order.
    :returns: The number of each question, and its scores or why it has none.
    """
    prompts: list[Any] = []
    by_row: dict[int, list[Any]] = {}
    owner: list[tuple[int, int]] = []
    for number, row in enumerate(rows):
        try:
            by_row[number] = prompts_of(row)
        except UnscorableError as error:
            yield number, error
            continue
        prompts += by_row[number]
        owner += [(number, place) for place in range(len(by_row[number]))]
    values: dict[int, dict[int, Any]] = {number: {} for number in by_row}
    for prompt, value in read(prompts):
        number, place = owner[prompt]
        values[number][place] = value
        if len(values[number]) == len(by_row[number]):
            complete = values.pop(number)
            try:
                yield number, scored(rows[number], by_row[number], [complete[place] for place in sorted(complete)])
            except UnscorableError as error:
                yield number, error


def in_order(scored: Iterator[tuple[int, Scored | UnscorableError]]) -> list[Scored]:
    """Wait for all that `score_by_row` gives: scores in their order, or an UnscorableError if a question has none."""
    finished: dict[int, Scored] = {}
    for number, outcome in scored:
        if isinstance(outcome, UnscorableError):
            raise outcome
        finished[number] = outcome
    return [finished[number] for number in sorted(finished)]
