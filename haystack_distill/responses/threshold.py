"""When a retrieved response is good enough: a threshold on its score, chosen on dev dialogues."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Threshold:
    """
    A threshold and what it does on the dialogues that it was chosen on.

    :param precision: The share of given responses that are good.
    :param coverage: The share of all dialogues that are given a response; the generator answers the others.
    """

    score: float
    precision: float
    coverage: float


def threshold_for(scores: Sequence[float], good: Sequence[bool], precision: float) -> Threshold:
    """
    Choose the lowest threshold at which enough of the responses above it are good.

    What is good is yours to say: that the generator finds the retrieved response at least as likely as its own, that a
    person found it sensible, or that it is the human one. Scores must come from the retriever that serves.

    :param scores: The score of the retrieved response to each dev dialogue, higher is better.
    :param precision: The wanted share of good responses among those that are given, above 0 and at most 1.
    :raises ValueError: If the lengths differ, there is nothing, or no threshold reaches the precision.
    """
    if len(scores) != len(good) or not len(scores):
        msg = f"Calibration needs a verdict for each score: there are {len(scores)} scores and {len(good)} verdicts."
        raise ValueError(msg)
    if not 0 < precision <= 1:
        msg = f"The precision must be above 0 and at most 1, not {precision}."
        raise ValueError(msg)
    values = np.asarray(scores, dtype=np.float64)
    if not np.isfinite(values).all():
        msg = "Not all scores are numbers: leave out dialogues for which nothing was retrieved."
        raise ValueError(msg)
    order = np.argsort(-values, kind="stable")
    values, hits = values[order], np.cumsum(np.asarray(good, dtype=bool)[order])
    shares = hits / np.arange(1, len(values) + 1)
    # Equal scores are given together or not at all.
    last = np.append(values[1:] != values[:-1], True)
    enough = np.flatnonzero(last & (shares >= precision))
    if not len(enough):
        msg = (
            f"No threshold makes {precision:.0%} of the responses good; the best is {shares[last].max():.0%}. Ask for "
            "less, or let the generator answer everything."
        )
        raise ValueError(msg)
    place = int(enough[-1])
    return Threshold(float(values[place]), float(shares[place]), (place + 1) / len(values))
