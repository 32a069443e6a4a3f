"""
A chat model that puts passages in order: a teacher for whoever can only talk to a model.

Likelihoods need a model that is loaded here, or a server that returns log-probabilities of a prompt; an order can be
asked of any chat model. As in RankGPT (arXiv 2304.09542, section 3) long lists are read in windows from the end to the
beginning, each of which overlaps the one before, so that good passages wander to the front. The prompt is that of
RankZephyr (arXiv 2312.02724).
"""

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

import numpy as np

from haystack_distill.generation.cleaning import without_thoughts
from haystack_distill.generation.requests import Generator, Reply, Request
from haystack_distill.teachers.control_tokens import KNOWN, broken
from haystack_distill.teachers.prompts import Prompt, UnscorableError, fill
from haystack_distill.teachers.scores import Candidates, Scored, check_candidates, in_order, passage_orders

SIGNAL = "listwise"
WINDOW, STEP = 20, 10
"""Passages of a prompt, and how far the next window moves: RankGPT's."""

IN_HAND = 32
"""Questions that are asked about together: what a kill may cost of lists that take several windows."""

MOST_WORDS = 300
"""Of a passage, as in RankGPT; longer ones are cut, and said to be."""

PROMPT = Prompt(
    "I will provide you with passages, each indicated by a numerical identifier []. Rank the passages based on their "
    "relevance to the search query: {question}.\n\n{passages}\nSearch query: {question}.\nRank the passages above "
    "based on their relevance to the search query. All the passages should be included and listed using identifiers, "
    "in descending order of relevance. The output format should be [] > [], e.g., [2] > [1]. Only respond with the "
    "ranking results, do not say any word or explain.",
    item="[{number}] {passage}\n",
)
_IDENTIFIER = re.compile(r"\[(\d+)\]")
_NUMBERS_ALONE = re.compile(r"[\d\s>,;.|-]+")


@dataclass
class _Ordering:
    """One order of a question's passages, as it is sorted window by window, the last window first."""

    order: list[int]
    starts: list[int]
    named: int = 0


@dataclass
class _Question:
    """A question with all orders in which its passages are read."""

    row: Candidates
    passages: list[str]
    cut: frozenset[int]
    orderings: list[_Ordering]
    usage: Counter[str] = field(default_factory=Counter)


class ListwiseTeacher:
    """
    Scores passages by the place that a chat model gives them: 1 for the first, 1/2 for the second, and so on.

    Of up to twenty passages, those that the model does not name share the places that are left: no order is made up for
    them. In a longer list what a window leaves unnamed keeps its order, as in RankGPT, until a later window names it.

    :param generator: Asks the chat model.
    :param prompt: A text with places `{question}` and `{passages}`; None takes RankZephyr's.
    :param permutations: In how many orders the passages are shown; the scores are averaged. With two, what a model
        chooses by position alone cancels out.
    :raises ValueError: If the prompt or its item lacks a place, or `permutations` is below 1.
    """

    signal = SIGNAL
    rows_at_once = IN_HAND

    def __init__(self, generator: Generator, prompt: Prompt | None = None, *, permutations: int = 1) -> None:
        if permutations < 1:
            msg = f"permutations must be at least 1, not {permutations}."
            raise ValueError(msg)
        self.generator = generator
        self.prompt = prompt or PROMPT
        self.prompt.check_places(PROMPT, SIGNAL)
        if "{number}" not in self.prompt.item:
            msg = f"The prompt's item {self.prompt.item!r} lacks a place for {{number}}, by which passages are named."
            raise ValueError(msg)
        self.permutations = permutations

    @property
    def identity(self) -> dict[str, Any]:
        """The chat model, the prompt and how lists are read."""
        windows = {"window": WINDOW, "step": STEP, "words": MOST_WORDS, "permutations": self.permutations}
        return {**self.generator.identity, "signal": SIGNAL, "prompt": self.prompt.fingerprint(None), **windows}

    def score(self, rows: Sequence[Candidates]) -> list[Scored]:
        """Score the passages of several questions; an UnscorableError if one of these can't be scored."""
        return in_order(self.score_each(rows))

    def score_each(self, rows: Sequence[Candidates]) -> Iterator[tuple[int, Scored | UnscorableError]]:
        """
        Score the passages of many questions, each as soon as its last window is read.

        :raises ConnectionError: If the model can't be asked any more; what it said before is scored.
        """
        questions: dict[int, _Question] = {}
        for number, row in enumerate(rows):
            try:
                check_candidates(row, SIGNAL, answers=False)
                questions[number] = self._question(row)
            except UnscorableError as error:
                yield number, error
        while questions:
            yield from self._one_window_each(questions)

    def _one_window_each(self, questions: dict[int, _Question]) -> Iterator[tuple[int, Scored | UnscorableError]]:
        """Read the next window of every order; a question that is done, or can't be read, is taken out."""
        requests = [request for number, question in questions.items() for request in self._requests(number, question)]
        waiting = Counter(_owner(request.id)[0] for request in requests)
        errors: dict[int, UnscorableError] = {}
        unanswered: dict[int, UnscorableError] = {}
        for reply in (reply for piece in self.generator.work(requests, frozenset()) for reply in piece):
            number, place = _owner(reply.id)
            question = questions[number]
            question.usage.update(reply.usage)
            waiting[number] -= 1
            if not reply.failed:  # the server is there, and yet some were not answered
                yield from unanswered.items()
                unanswered.clear()
            try:
                _sort(question, question.orderings[place], reply)
            except UnscorableError as error:
                errors.setdefault(number, error)
            if waiting[number]:
                continue
            if number in errors:
                paid = UnscorableError(str(errors[number]), dict(questions.pop(number).usage))
                if reply.failed:
                    unanswered[number] = paid
                else:
                    yield number, paid
            elif not any(one.starts for one in question.orderings):
                yield number, _scored(questions.pop(number))
        if unanswered:
            msg = (
                f"{next(iter(unanswered.values()))} Nothing that was said before is lost: start again when it answers."
            )
            raise ConnectionError(msg)

    def _question(self, row: Candidates) -> _Question:
        words = [text.split() for text in row.passages]
        texts = [_plain(" ".join(of_passage[:MOST_WORDS])) for of_passage in words]
        cut = frozenset(number for number, of_passage in enumerate(words) if len(of_passage) > MOST_WORDS)
        starts = [*range(len(texts) - WINDOW, 0, -STEP), 0]
        orders = passage_orders(len(texts), self.permutations)
        return _Question(row, texts, cut, [_Ordering(order, list(starts)) for order in orders])

    def _requests(self, number: int, question: _Question) -> Iterator[Request]:
        """The next window of each order that has one left."""
        for place, ordering in enumerate(question.orderings):
            if ordering.starts:
                shown = [question.passages[one] for one in _window(ordering)]
                text = fill(self.prompt, _plain(question.row.query), shown)
                yield Request(f"{number} {place}", (text,), (0,))


def _owner(request_id: str) -> tuple[int, int]:
    number, place = request_id.split()
    return int(number), int(place)


def _window(ordering: _Ordering) -> list[int]:
    start = ordering.starts[0]
    return ordering.order[start : start + WINDOW]


def _plain(text: str) -> str:
    """A text in which no control token and no identifier of a passage stands."""
    return _IDENTIFIER.sub(r"(\1)", broken(" ".join(text.split()), KNOWN))


def _sort(question: _Question, ordering: _Ordering, reply: Reply) -> None:
    """
    Bring a window into the order that the model named.

    :raises UnscorableError: If the model could not be asked, or named no passage of the window.
    """
    shown, said = _window(ordering), without_thoughts(reply.texts[0].text) if reply.texts else ""
    named = _named(said, len(shown))
    if not named:
        what = f"the {len(shown)} passages of the query {question.row.query!r}"
        msg = (
            f"{reply.model} named none of {what}, but said {said[:60]!r}: take a model that follows instructions, or "
            "leave it more tokens."
            if reply.texts
            else f"{reply.model} said nothing about {what}: {reply.reason or 'no reason was given'}."
        )
        raise UnscorableError(msg)
    start = ordering.starts.pop(0)
    left = [place for place in range(len(shown)) if place not in set(named)]
    ordering.order[start : start + WINDOW] = [shown[place] for place in [*named, *left]]
    ordering.named = len(named)


def _named(said: str, count: int) -> list[int]:
    """Places of the passages that a reply names, each once, in its order; numbers that none has are passed over."""
    bare = re.findall(r"\d+", said) if _NUMBERS_ALONE.fullmatch(said) else []
    numbers = _IDENTIFIER.findall(said) or bare
    places = dict.fromkeys(int(number) - 1 for number in islice(numbers, 10 * count) if len(number) < 5)
    return [place for place in places if 0 <= place < count]


def _scored(question: _Question) -> Scored:
    scores = np.zeros(len(question.passages))
    for ordering in question.orderings:
        places = 1 / np.arange(1, 1 + len(scores))
        unnamed = places[ordering.named : WINDOW]
        if len(unnamed):
            unnamed[:] = unnamed.mean()
        scores[ordering.order] += places
    return Scored(scores / len(question.orderings), question.cut, dict(question.usage))
