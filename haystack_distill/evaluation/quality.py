"""Quality, its certainty, and latency, of several query encoders against one index."""

import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import ir_measures
import numpy as np
from scipy import stats

from haystack_distill.data.beir import Qrels
from haystack_distill.data.index import IndexView
from haystack_distill.evaluation.measures import MAIN, MEASURES

DEPTH = 100
"""How many documents a run holds for each query."""

SCORES = 2**25
"""How many scores are in memory at once: 128 MiB of them."""

FLIPS, RESAMPLES, BATCH = 9_999, 2_000, 250
"""Flips of a randomisation test, resamples of a bootstrap, and how many of them are in memory at once."""

Run = dict[str, dict[str, float]]
"""Query id -> document id -> score."""


@dataclass(frozen=True)
class Quality:
    """
    How well a system ranks.

    :param per_query: Measure -> value of each query, in the order of `query_ids`.
    :param groups: The number of each query's group, see `groups_of`; None where queries are independent.
    """

    per_query: dict[str, np.ndarray]
    query_ids: list[str]
    groups: np.ndarray | None = None

    def mean(self, measure: str = MAIN.key) -> float:
        """The mean of a measure over the queries."""
        return float(self.per_query[measure].mean())

    def summary(self, seed: int = 0) -> dict[str, dict[str, float]]:
        """The mean of each measure as `value`, with its 95 % bootstrap interval `low` to `high`."""
        return {name: self.interval(values, seed) for name, values in self.per_query.items()}

    def interval(self, values: np.ndarray, seed: int, of: np.ndarray | None = None) -> dict[str, float]:
        """
        The mean of some figures of the queries, or its ratio to the mean of others (`of`), with its 95 % interval.

        :returns: `value`, `low` and `high`, by a bootstrap.
        """
        tops, bottoms = self.sums(values), self.sums(np.ones(len(values)) if of is None else of)
        value = float(_ratio(tops, bottoms))
        if len(tops) < 2:
            return {"value": value, "low": value, "high": value}
        random, ratios = np.random.default_rng(seed), []
        with np.errstate(divide="ignore", invalid="ignore"):
            for _ in range(RESAMPLES // BATCH):
                drawn = random.integers(len(tops), size=(BATCH, len(tops)))
                ratios.append(_ratio(tops[drawn], bottoms[drawn]))
            low, high = np.percentile(ratios, [2.5, 97.5])
        return {"value": value, "low": float(low), "high": float(high)}

    def sums(self, values: np.ndarray) -> np.ndarray:
        """The sum of each group: groups are what is resampled."""
        return values if self.groups is None else np.bincount(self.groups, values)


def _ratio(tops: np.ndarray, bottoms: np.ndarray) -> np.ndarray:
    return tops.sum(axis=-1) / bottoms.sum(axis=-1)


def groups_of(qrels: Qrels) -> np.ndarray:
    """
    Number the groups of queries that are resampled together, because they ask for the same document.

    Questions about one passage are found or missed together, so each is worth less than a question about a passage of
    its own. A query belongs to the relevant document that most queries share. Where that is one document for all, the
    queries are resampled one by one, and the interval speaks of other questions about that document.
    """
    relevant = {query_id: [key for key, grade in judged.items() if grade > 0] for query_id, judged in qrels.items()}
    asked = Counter(document for documents in relevant.values() for document in documents)
    numbers: dict[Any, int] = {}
    groups = np.zeros(len(qrels), dtype=np.int64)
    for row, (query_id, documents) in enumerate(relevant.items()):
        shared = max(documents, key=lambda document: (asked[document], document), default=(query_id,))
        groups[row] = numbers.setdefault(shared, len(numbers))
    return groups if len(numbers) > 1 else np.arange(len(groups))


def search(
    index: IndexView,
    query_ids: Sequence[str],
    query_vectors: np.ndarray,
    depth: int = DEPTH,
    own: Mapping[str, int] | None = None,
) -> Run:
    """Rank documents exactly, by inner product; a query does not find the row of the index that is its `own`."""
    documents = np.asarray(index.ranking_vectors)
    depth = min(depth, len(index))
    run: Run = {}
    own = own or {}
    batch = max(1, min(256, SCORES // len(index)))
    for start in range(0, len(query_ids), batch):
        scores = query_vectors[start : start + batch] @ documents.T
        asked = query_ids[start : start + batch]
        for row, query_id in enumerate(asked):
            if query_id in own:
                scores[row, own[query_id]] = -np.inf
        best = np.argpartition(-scores, depth - 1, axis=1)[:, :depth]
        for row, query_id in enumerate(asked):
            others = (column for column in best[row] if column != own.get(query_id))
            run[query_id] = {index.ids[column]: float(scores[row, column]) for column in others}
    return run


def own_rows(index: IndexView, queries: Mapping[str, str], qrels: Qrels) -> dict[str, int]:
    """
    The queries that are documents of the index themselves, as in BEIR's ArguAna, and should not find themselves.

    :param qrels: A document that is judged relevant to the query may be found.
    :returns: Query id -> row, where the ids are equal and the query is the text or, after a title, its end. Equal ids
        alone say nothing: both may have been counted.
    """
    rows = {document: row for row, document in enumerate(index.ids) if document in qrels}
    return {
        query_id: row
        for query_id, row in rows.items()
        if query_id not in qrels[query_id] and f" {index.texts[row]}".endswith(f" {queries[query_id].strip()}")
    }


def ranking(scores: Mapping[str, float]) -> list[str]:
    """Document ids, the best first; ties are broken by id, as trec_eval does."""
    return sorted(scores, key=lambda document: (scores[document], document), reverse=True)


def measure(run: Run, qrels: Qrels) -> Quality:
    """Compare a run with judgments; a query without a result counts as 0. A ValueError if nothing is judged."""
    if not qrels:
        msg = "There are no judgments to evaluate on: give qrels for the queries."
        raise ValueError(msg)
    query_ids = list(qrels)
    rows = {query_id: row for row, query_id in enumerate(query_ids)}
    keys = {ir_measures.parse_measure(row.definition): row.key for row in MEASURES}
    values = {key: np.zeros(len(query_ids)) for key in keys.values()}
    # The providers behind ir-measures break ties differently; ranks have none.
    ranks = {
        query_id: {document: -float(rank) for rank, document in enumerate(ranking(scores))}
        for query_id, scores in run.items()
    }
    for result in ir_measures.iter_calc(list(keys), qrels, ranks):
        values[keys[result.measure]][rows[result.query_id]] = result.value
    return Quality(values, query_ids, groups_of(qrels))


def compare(first: Quality, second: Quality, name: str = MAIN.key, seed: int = 0) -> dict[str, float]:
    """
    Test whether two systems differ on the same queries.

    :returns: The mean `difference` (first - second) with its 95 % bootstrap interval `low` to `high`, and the two-sided
        `p` of a paired randomisation test, which flips the signs of whole groups (1 for a single query).
    """
    differences = first.per_query[name] - second.per_query[name]
    interval = first.interval(differences, seed)
    sums, p = first.sums(differences), 1.0
    if len(sums) > 1 and np.any(sums):
        random = np.random.default_rng(seed)

        def flipped(size: tuple[int, ...]) -> np.ndarray:
            return sums * (2 * random.integers(2, size=size, dtype=np.int8) - 1)

        test = stats.monte_carlo_test(sums, flipped, np.mean, vectorized=True, n_resamples=FLIPS, batch=BATCH)
        p = float(test.pvalue)
    return {"difference": interval["value"], "low": interval["low"], "high": interval["high"], "p": p}


def share(first: Quality, second: Quality, name: str = MAIN.key, seed: int = 0) -> dict[str, float | None]:
    """
    The mean of one system as a share of another's, on the same queries.

    :returns: `value` with its 95 % interval `low` to `high`, for which both are resampled together. None stands for
        what can't be told: the share of a system that finds nothing, or an interval of so few that it finds that it
        has no end.
    """
    if not second.mean(name):
        return dict.fromkeys(("value", "low", "high"))
    interval = first.interval(first.per_query[name], seed, of=second.per_query[name])
    told = np.isfinite([interval["low"], interval["high"]]).all()
    return {key: figure if told or key == "value" else None for key, figure in interval.items()}


def latency_ms(encoders: Mapping[str, Callable[[str], Any]], queries: Sequence[str]) -> dict[str, float]:
    """The median milliseconds that each encoder, name -> function of a query, takes for a query; see `latencies`."""
    return {name: float(np.median(times)) for name, times in latencies(encoders, queries).items()}


def latencies(
    encoders: Mapping[str, Callable[[str], Any]], queries: Sequence[str], rounds: int = 5, warm_up: int = 3
) -> dict[str, np.ndarray]:
    """
    Time encoders one query at a time, in turn: all queries with one, then all with the next, and so on for each round.

    Within its turn an encoder has the processor's caches to itself, as in a server; turns that come round let all of
    them meet the machine in the same state.

    :param queries: Each is timed `rounds` times with every encoder.
    :param warm_up: Calls at the start of each turn that are not counted.
    """
    names = list(encoders)
    seconds: dict[str, list[float]] = {name: [] for name in names}
    for number in range(rounds):
        for place in range(len(names)):
            name = names[(number + place) % len(names)]
            encode = encoders[name]
            for query in queries[:warm_up]:
                encode(query)
            for query in queries:
                start = time.perf_counter()
                encode(query)
                seconds[name].append(time.perf_counter() - start)
    return {name: 1000 * np.array(times) for name, times in seconds.items()}
