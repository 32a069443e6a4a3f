"""What two retrievals find for the same questions, as a page that anybody can judge by."""

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

from haystack_distill.evaluation.pages import page_of


@dataclass(frozen=True)
class Side:
    """
    What one of them found for a question.

    :param passages: Their texts, the best first.
    :param answer: What a generator made of them, None where there is none.
    """

    passages: list[str]
    milliseconds: float
    answer: str | None = None


@dataclass(frozen=True)
class Row:
    """A question and what the old and the new retrieval made of it."""

    question: str
    sides: tuple[Side, Side]

    @property
    def shared(self) -> set[str]:
        """The passages that both found."""
        old, new = self.sides
        return {*old.passages} & {*new.passages}


def summary_of(rows: Sequence[Row]) -> dict[str, Any]:
    """Say how alike they are: `same_first`, `same` (counts of questions) and the median `milliseconds` of both."""
    pairs = [[side.passages for side in row.sides] for row in rows]
    return {
        "same_first": sum(old[:1] == new[:1] for old, new in pairs),
        "same": sum(old == new for old, new in pairs),
        "milliseconds": [median(row.sides[place].milliseconds for row in rows) for place in (0, 1)],
    }


def side_by_side(names: tuple[str, str], rows: Sequence[Row]) -> str:
    """
    Render the page.

    :param names: Of the old and the new retrieval.
    :returns: HTML without any reference to another file.
    """
    return page_of("side_by_side.html.j2", names=names, rows=rows, **summary_of(rows))
