"""How sure an encoder is of what it found for a query, from the scores of its first documents alone."""

from collections.abc import Sequence

FIRST = 10
"""How many documents it is told from."""

SIGNAL = "best_and_margin"
"""What files with thresholds call it, so that thresholds of another signal are refused."""


def sureness(scores: Sequence[float]) -> float:
    """
    The best score, and twice its distance to the tenth.

    The best score falls where a query is foreign to the encoder; the distance is small where it can't tell documents
    apart, though all fit. Which signals were compared: docs/decisions/0012.

    :param scores: Of what was found, the best first and higher where it is better; those after the tenth don't count.
    :returns: Higher where the encoder is surer, in units of the scores; minus infinity where it found nothing.
    """
    return scores[0] + 2 * (scores[0] - scores[:FIRST][-1]) if scores else float("-inf")
