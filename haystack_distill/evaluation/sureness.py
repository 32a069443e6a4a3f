"""How sure an encoder is of what it found for a query, from the scores of its first documents alone."""

from collections.abc import Iterable
from heapq import nlargest
from typing import Literal, get_args

FIRST = 10
"""How many documents it is told from."""

Signal = Literal["best_and_margin"]
SIGNAL: Signal = get_args(Signal)[0]
"""What files with thresholds call it, so that thresholds of another signal are refused."""


def sureness(scores: Iterable[float]) -> float:
    """
    The best score, and twice its distance to the tenth.

    The best score falls where a query is foreign to the encoder; the distance is small where it can't tell documents
    apart, though all fit. Which signals were compared: docs/decisions/0012.

    :param scores: Of what was found, higher where it is better; those after the tenth don't count.
    :returns: Higher where the encoder is surer, in units of the scores; minus infinity where it found nothing.
    """
    first = nlargest(FIRST, scores)
    return first[0] + 2 * (first[0] - first[-1]) if first else float("-inf")
