"""From which score on a retrieved response is given and not left to a generator: calibrated as cascades are."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from haystack_distill.evaluation.calibration import FEWEST, least_lost, most_sent


@dataclass(frozen=True)
class Threshold:
    """
    A threshold and what it does on the dialogues that it was chosen on.

    :param bad: The share of dialogues that are given a bad response; None without verdicts.
    :param coverage: The share of dialogues that are given a response; the generator answers the others.
    """

    score: float
    bad: float | None
    coverage: float


def threshold_for(
    scores: Sequence[float],
    good: Sequence[bool] | None = None,
    *,
    max_bad: float | None = None,
    max_share: float | None = None,
) -> Threshold:
    """
    Choose the threshold by conformal risk control (arXiv 2208.02814), as `DistilledRetriever.calibrate` does.

    For dialogues to come that are drawn like these, the expected cost is at most what is asked for, however few these
    were. What is good is yours to say: that the generator finds the response at least as likely as its own, that a
    person found it sensible, or that it is the human one. Scores must come from the pipeline that serves.

    :param scores: The score of the retrieved response to each dev dialogue, higher is better.
    :param good: Whether each of these responses is good; `max_bad` needs it.
    :param max_bad: At most this share of all dialogues may be given a bad response: the lowest such threshold.
    :param max_share: At most this share of dialogues may go to the generator: the highest such threshold.
    :raises ValueError: If not exactly one target is named, lengths differ, a score is no number, or there are too few
        dialogues for the target.
    """
    values = np.asarray(scores, dtype=np.float64)
    verdicts = None if good is None else np.asarray(good, dtype=bool)
    _check(values, verdicts, max_bad, max_share)
    if max_share is not None:
        at = most_sent(values, max_share)
    else:
        assert verdicts is not None
        assert max_bad is not None
        at = least_lost(values, (~verdicts).astype(float), np.full(len(values), max_bad))
    given = values > at
    bad = None if verdicts is None else float((given & ~verdicts).mean())
    # A cascade answers above its threshold, a response is given from it on.
    return Threshold(float(np.nextafter(at, np.inf)), bad, float(given.mean()))


def _check(values: np.ndarray, verdicts: np.ndarray | None, max_bad: float | None, max_share: float | None) -> None:
    target = max_share if max_bad is None else max_bad
    if target is None or None not in {max_bad, max_share} or not 0 < target < 1:
        msg = f"Name one target between 0 and 1: got max_bad={max_bad} and max_share={max_share}."
        raise ValueError(msg)
    if (max_bad is not None and verdicts is None) or (verdicts is not None and len(verdicts) != len(values)):
        of_them = "no" if verdicts is None else len(verdicts)
        msg = f"Calibration needs a verdict for each score: there are {len(values)} scores and {of_them} verdicts."
        raise ValueError(msg)
    if not np.isfinite(values).all():
        msg = "Not all scores are numbers: leave out dialogues for which nothing was retrieved."
        raise ValueError(msg)
    needed = max(FEWEST, int(np.ceil(1 / target)))
    if len(values) < needed:
        msg = f"{len(values)} dialogues are too few to calibrate to {target}: give {needed} or more."
        raise ValueError(msg)
