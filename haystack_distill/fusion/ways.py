"""Several retrievers alone, and each way of joining them: what they find for queries, and how long they take."""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from haystack_distill.data.beir import Qrels
from haystack_distill.evaluation.comparison import Measured, System
from haystack_distill.evaluation.quality import Run, latency_ms, measure
from haystack_distill.fusion.baselines import BASELINES, FITTED, places
from haystack_distill.fusion.model import Fusion, Ranked

TIMED = 5
"""Queries that are timed."""

Search = Callable[[str], Ranked]
"""A query -> what a retriever finds."""


def runs_of(fusion: Fusion, lists: Mapping[str, Mapping[str, Ranked]], parts: Mapping[str, Fusion]) -> dict[str, Run]:
    """
    What each retriever, each baseline and the fusion make of lists.

    :param lists: Query id -> retriever -> list.
    :param parts: Query id -> a fusion that was fitted without the query; where there is none, the whole one serves.
    :returns: Retriever or way of joining -> run.
    """
    alone = {name: {key: places(each.get(name, {})) for key, each in lists.items()} for name in fusion.names}
    ways = {way: {key: join(each.values()) for key, each in lists.items()} for way, join in BASELINES.items()}
    return {**alone, **ways, FITTED: {key: parts.get(key, fusion).join(each) for key, each in lists.items()}}


def searches_of(fusion: Fusion, searches: Mapping[str, Search]) -> dict[str, Search]:
    """
    One query at a time: each search alone, and all of them, one after the other, with each way of joining.

    :param searches: Retriever -> its search.
    :returns: Retriever or way of joining -> its search.
    """

    def all_lists(query: str) -> dict[str, Ranked]:
        return {name: search(query) for name, search in searches.items()}

    ways = {way: (lambda query, join=join: join(all_lists(query).values())) for way, join in BASELINES.items()}
    return {**searches, **ways, FITTED: lambda query: fusion.join(all_lists(query))}


def measured_ways(
    runs: Mapping[str, Run], searches: Mapping[str, Callable[[str], Any]], queries: dict[str, str], qrels: Qrels
) -> dict[str, Measured]:
    """
    Measure what was found, and the time to find it; latencies one query at a time, in turn.

    :param runs: Name -> what was found for the judged queries.
    :param searches: Name -> the search that finds it.
    """
    milliseconds = latency_ms({name: searches[name] for name in runs}, [queries[key] for key in qrels][:TIMED])
    return {
        name: Measured(System(name, partial(map, searches[name]), 1), measure(run, qrels), milliseconds[name], run)
        for name, run in runs.items()
    }
