"""
How the lists of several retrievers become one ranking: fitted weights, and what the lists look like.

```python
from haystack_distill.fusion.model import Fusion

fusion = Fusion.load("models/hybrid")
scores = fusion.join({"keyword": {"a": 7.1, "b": 3.2}, "dense": {"b": 0.81, "c": 0.43}})
print(list(scores))
```
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import pairwise, permutations
from pathlib import Path
from typing import Any

import numpy as np

from haystack_distill.files.shapes import read_json, shaped
from haystack_distill.fusion.scales import SCALES

FILE = "fusion.json"
VERSION = 1

MARGIN = 2.0
"""A list may lie outside of the scores that were seen in fitting by so many times their range."""

Ranked = Mapping[str, float]
"""Document id -> score as its retriever gives it, the best first."""


@dataclass(frozen=True)
class Retriever:
    """
    One of the retrievers that a fusion was fitted for.

    :param weight: How much it counts; the weights of all sum to 1.
    :param falls: Whether its scores fall along its lists; distances rise.
    :param first: Mean and standard deviation of the first score of its lists.
    :param last: Those of the last.
    :param low: Its lowest score.
    :param high: Its highest score.
    """

    name: str
    weight: float
    falls: bool
    first: tuple[float, float]
    last: tuple[float, float]
    low: float
    high: float

    def distance(self, ranked: Ranked) -> float:
        """How unlike its own lists a list is: squared standard deviations of the first and of the last score."""
        if not ranked:
            return 0.0
        scores = list(ranked.values())
        ends = ((scores[0], self.first), (scores[-1], self.last))
        return sum(((score - mean) / deviation) ** 2 for score, (mean, deviation) in ends)

    def could_give(self, ranked: Ranked) -> bool:
        """Whether direction and range of a list are as in fitting."""
        scores, slack = list(ranked.values()), MARGIN * (self.high - self.low)
        falls = all(before >= after if self.falls else before <= after for before, after in pairwise(scores))
        return falls and all(self.low - slack <= score <= self.high + slack for score in scores)

    def __str__(self) -> str:
        """The retriever as an error names it."""
        return f"{self.name} (scores {self.low:.3g} to {self.high:.3g}, {'falling' if self.falls else 'rising'})"


@dataclass(frozen=True)
class Fusion:
    """
    A fitted fusion: the weighted sum of the retrievers' scores on one scale.

    :param scale: One of `SCALES`.
    :param top_k: How many documents a list held at most in fitting; scales depend on it.
    :param retrievers: In the order in which they were given.
    :param told_apart: Whether every list of the fitting can be told from the others by its scores, see `whose`.
    """

    scale: str
    top_k: int
    retrievers: tuple[Retriever, ...]
    told_apart: bool = True

    @property
    def names(self) -> list[str]:
        """The names of the retrievers."""
        return [retriever.name for retriever in self.retrievers]

    def join(self, lists: Mapping[str, Ranked]) -> dict[str, float]:
        """
        Join the lists of retrievers that are known by name.

        :param lists: Name -> list; a retriever that found nothing may be left out.
        :returns: Document id -> score, the best first.
        :raises ValueError: If a name is unknown, or a score is missing or no number.
        """
        unknown = lists.keys() - set(self.names)
        if unknown:
            fitted = ", ".join(self.names)
            msg = f"The fusion was fitted for {fitted}, not for {min(unknown)!r}: fit it with that retriever."
            raise ValueError(msg)
        totals: dict[str, float] = {}
        absent = 0.0
        for retriever in self.retrievers:  # ties stand in this order, whichever list came first
            ranked, weight = lists.get(retriever.name, {}), retriever.weight
            if ranked:
                values, missing = SCALES[self.scale](better_first(retriever.name, ranked, retriever.falls))
                absent += weight * missing
                for document, value in zip(ranked, (weight * (values - missing)).tolist(), strict=True):
                    totals[document] = totals.get(document, 0.0) + value
        order = sorted(totals, key=totals.__getitem__, reverse=True)
        return {document: totals[document] + absent for document in order}

    def whose(self, lists: Sequence[Ranked]) -> list[str]:
        """
        Tell whose lists these are: Haystack hands a joiner its lists in the order in which retrievers finish.

        The lists are given to the retrievers so that their first and last scores are as likely as can be.

        :returns: The retrievers' names, in the order of the lists.
        :raises ValueError: If there are more lists than retrievers, or one can be of none of them.
        """
        orders = [
            order
            for order in permutations(self.retrievers, len(lists))
            if all(retriever.could_give(ranked) for retriever, ranked in zip(order, lists, strict=True))
        ]
        if not orders:
            seen = "; ".join(_range(ranked) for ranked in lists)
            msg = (
                f"The fusion was fitted for {', '.join(map(str, self.retrievers))}. It can't join {len(lists)} lists "
                f"with the scores {seen}: connect the retrievers that it was fitted with, or fit it again."
            )
            raise ValueError(msg)
        best = min(orders, key=lambda order: sum(map(Retriever.distance, order, lists)))
        return [retriever.name for retriever in best]

    def content(self) -> dict[str, Any]:
        """What `fusion.json` holds."""
        return {"version": VERSION, **asdict(self)}

    @classmethod
    def load(cls, folder: str | Path) -> "Fusion":
        """
        Read what `FusionDistiller` wrote.

        :raises FileNotFoundError: If there is no `fusion.json`.
        :raises ValueError: If it is damaged or of another version.
        """
        file = Path(folder) / FILE
        if not file.is_file():
            msg = f"{folder} holds no fitted fusion (no {FILE} in it): make one with FusionDistiller."
            raise FileNotFoundError(msg)
        again = "fit it again."
        content = read_json(file, dict[str, Any], again)
        if content.pop("version", None) != VERSION:
            msg = f"{file} is of another version of haystack-distill: {again}"
            raise ValueError(msg)
        fusion: Fusion = shaped(content, cls, f"{file} is damaged", f": {again}")
        return fusion


def better_first(name: str, ranked: Ranked, falls: bool) -> np.ndarray:
    """
    Scores of which higher is better, `[documents]`.

    :raises ValueError: If a score is missing or no number.
    """
    values = np.array([np.nan if score is None else score for score in ranked.values()], dtype=np.float64)
    if not np.isfinite(values).all():
        document = list(ranked)[int(np.argmin(np.isfinite(values)))]
        msg = (
            f"{name} returned the document {document!r} without a score that is a number: it can't be joined by scores."
        )
        raise ValueError(msg)
    return values if falls else -values


def _range(ranked: Ranked) -> str:
    return f"{min(ranked.values()):.3g} to {max(ranked.values()):.3g}" if ranked else "none"
