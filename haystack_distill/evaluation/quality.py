# SPDX-FileCopyrightText: 2026-present haystack-distill contributors
#
# SPDX-License-Identifier: Apache-2.0

"""Quality, its certainty, and latency, of several query encoders against one index."""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import ir_measures
import numpy as np
from ir_measures import RR, R, nDCG
from scipy import stats

from haystack_distill.data.beir import Qrels
from haystack_distill.data.index import IndexView

MEASURES = {"ndcg@10": nDCG @ 10, "recall@10": R @ 10, "mrr@10": RR @ 10}
DEPTH = 100
"""How many documents a run holds for each query."""

SCORES = 2**25
"""How many scores are in memory at once: 128 MiB of them."""

RESAMPLES = 10_000
Run = dict[str, dict[str, float]]
"""Query id -> document id -> score."""


@dataclass(frozen=True)
class Quality:
    """
    How well a system ranks.

    :param per_query: Measure -> value of each query, in the order of `query_ids`.
    :param query_ids: The judged queries.
    """

    per_query: dict[str, np.ndarray]
    query_ids: list[str]

    def mean(self, measure: str = "ndcg@10") -> float:
        """
        The mean over the queries.

        :param measure: `ndcg@10`, `recall@10` or `mrr@10`.
        """
        return float(self.per_query[measure].mean())

    def summary(self, seed: int = 0) -> dict[str, dict[str, float]]:
        """
        The means with their 95 % bootstrap intervals over the queries.

        :param seed: Of the bootstrap.
        :returns: Measure -> `value`, `low`, `high`.
        """
        return {name: _with_interval(values, seed) for name, values in self.per_query.items()}


def search(
    index: IndexView,
    query_ids: Sequence[str],
    query_vectors: np.ndarray,
    depth: int = DEPTH,
    own: Mapping[str, int] | None = None,
) -> Run:
    """
    Rank the documents of an index exactly, by inner product.

    :param index: The index.
    :param query_ids: The ids of the queries.
    :param query_vectors: `[queries, dim]`.
    :param depth: How many documents to return for each.
    :param own: Query id -> the row of a document that it must not find: see `own_rows`.
    :returns: The run.
    """
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

    :param index: The index.
    :param queries: Query id -> text.
    :param qrels: Judgments: a document that is judged relevant to the query may be found.
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
    """
    Document ids, the best first; ties by id, as trec_eval breaks them.

    :param scores: Document id -> score.
    """
    return sorted(scores, key=lambda document: (scores[document], document), reverse=True)


def measure(run: Run, qrels: Qrels) -> Quality:
    """
    Compare a run with judgments.

    :param run: The run.
    :param qrels: The judgments; queries without a result count as 0.
    :returns: The measures.
    :raises ValueError: If nothing is judged.
    """
    if not qrels:
        msg = "There are no judgments to evaluate on: give qrels for the queries."
        raise ValueError(msg)
    query_ids = list(qrels)
    rows = {query_id: row for row, query_id in enumerate(query_ids)}
    values = {name: np.zeros(len(query_ids)) for name in MEASURES}
    names = {measured: name for name, measured in MEASURES.items()}
    # The providers behind ir-measures break ties differently; ranks have none.
    ranks = {
        query_id: {document: -float(rank) for rank, document in enumerate(ranking(scores))}
        for query_id, scores in run.items()
    }
    for result in ir_measures.iter_calc(list(MEASURES.values()), qrels, ranks):
        values[names[result.measure]][rows[result.query_id]] = result.value
    return Quality(values, query_ids)


def compare(first: Quality, second: Quality, name: str = "ndcg@10", seed: int = 0) -> dict[str, float]:
    """
    Test whether two systems differ on the same queries.

    :param first: One system.
    :param second: The other.
    :param name: The measure.
    :param seed: Of the resampling.
    :returns: The mean `difference` (first - second) with its 95 % bootstrap interval `low` to `high`, and the two-sided
        `p` of a paired randomisation test (1 for a single query).
    """
    differences = first.per_query[name] - second.per_query[name]
    interval = _with_interval(differences, seed)
    p = 1.0
    if len(differences) > 1 and np.any(differences):
        test = stats.permutation_test(
            (differences,), np.mean, permutation_type="samples", n_resamples=RESAMPLES - 1, batch=256, rng=seed
        )
        p = float(test.pvalue)
    return {"difference": interval["value"], "low": interval["low"], "high": interval["high"], "p": p}


def latency_ms(encoders: Mapping[str, Callable[[str], Any]], queries: Sequence[str]) -> dict[str, float]:
    """
    The median time of each encoder, see `latencies`.

    :param encoders: Name -> function of a query.
    :param queries: Queries.
    :returns: Name -> milliseconds a query.
    """
    return {name: float(np.median(times)) for name, times in latencies(encoders, queries).items()}


def latencies(
    encoders: Mapping[str, Callable[[str], Any]], queries: Sequence[str], rounds: int = 5, warm_up: int = 3
) -> dict[str, np.ndarray]:
    """
    Time encoders one query at a time, in turn: all queries with one, then all with the next, and so on for each round.

    Within its turn an encoder has the processor's caches to itself, as in a server; turns that come round let all of
    them meet the machine in the same state.

    :param encoders: Name -> function of a query.
    :param queries: Queries; each is timed `rounds` times with every encoder.
    :param rounds: How often.
    :param warm_up: Calls at the start of each turn that are not counted.
    :returns: Name -> milliseconds of every call.
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


def _with_interval(values: np.ndarray, seed: int) -> dict[str, float]:
    mean = float(values.mean())
    if len(values) < 2 or not np.any(values != values[0]):
        return {"value": mean, "low": mean, "high": mean}
    test = stats.bootstrap(
        (values,), np.mean, n_resamples=RESAMPLES // 5, batch=256, method="percentile", rng=np.random.default_rng(seed)
    )
    return {"value": mean, "low": float(test.confidence_interval.low), "high": float(test.confidence_interval.high)}
