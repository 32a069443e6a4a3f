"""What a store returns of an encoder's own exact results: an approximate index misses some, more for a student."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

import numpy as np

from haystack_distill.data.index import IndexView
from haystack_distill.evaluation.comparison import Measured, System
from haystack_distill.evaluation.quality import search
from haystack_distill.files.sampling import sample

TOP, QUERIES = 10, 200
"""How many documents of how many queries are looked at."""

NOTICEABLE = 0.01
"""A student that recovers so much less than its teacher is named: 200 queries tell a point from noise."""

TIED = 1e-6
"""Scores this close, as a share of the best one, are equal: either document may be among the first ten."""


@dataclass(frozen=True)
class StoreSearch:
    """
    The search of a store, which may be approximate.

    :param find: A query vector and a number of documents -> their ids, as the store's retriever returns them.
    :param effort: What makes the search more thorough, as in "raise ...".
    """

    find: Callable[[list[float], int], list[str]]
    effort: str

    def recovered(
        self, measured: Mapping[str, Measured], index: IndexView, texts: list[str], seed: int
    ) -> dict[str, Measured]:
        """Add to what was measured of each encoder its recovery, on the same sample of the texts."""
        asked = sample(texts, QUERIES, seed)
        return {
            name: replace(each, recovery=self.recovery(each.system, index, asked)) for name, each in measured.items()
        }

    def recovery(self, system: System, index: IndexView, texts: list[str]) -> float:
        """The mean share of an encoder's own exact top ten that the store returns for the same vectors."""
        depth, documents = min(TOP, len(index)), index.ranking_vectors
        rows = {document: row for row, document in enumerate(index.ids)}
        vectors = np.asarray(system.encode(texts), dtype=np.float32)
        exact = search(index, [str(number) for number in range(len(texts))], vectors, depth)
        shares = []
        for vector, best in zip(vectors, exact.values(), strict=True):
            found = [rows[key] for key in self.find(vector.tolist(), depth) if key in rows]
            enough = min(best.values()) - TIED * max(map(abs, best.values()))
            shares.append(np.count_nonzero(documents[found] @ vector >= enough) / depth)
        return float(np.mean(shares))

    def advice(self, measured: Mapping[str, Measured], reference: str = "teacher") -> str | None:
        """Say what to raise, if a student recovers noticeably less than its teacher."""
        recoveries = {name: each.recovery or 0.0 for name, each in measured.items()}
        most = recoveries.pop(reference)
        less = [
            f"{100 * share:.1f} % of that of {name}" for name, share in recoveries.items() if share <= most - NOTICEABLE
        ]
        if not less:
            return None
        return (
            f"The store returns {100 * most:.1f} % of the {reference}'s own exact top ten and {', '.join(less)}, for "
            f"which the search must try harder: raise {self.effort}."
        )
