"""Query encoders in a hybrid: each in turn takes the same place beside the same other retrievers."""

import logging
from collections import defaultdict
from collections.abc import Mapping
from functools import partial

from haystack_distill.data.beir import Qrels
from haystack_distill.data.index import IndexView
from haystack_distill.evaluation.comparison import Measured, System, run_of
from haystack_distill.evaluation.quality import Run, own_rows, ranking, search
from haystack_distill.evaluation.students import Hybrid
from haystack_distill.fusion.fitting import describe
from haystack_distill.fusion.model import Fusion, Ranked, Retriever
from haystack_distill.fusion.ways import Search, measured_ways, runs_of, searches_of

logger = logging.getLogger(__name__)

ALONE = "alone"
"""What stands beside the ways of joining: each encoder and each other retriever by itself."""


def hybrid_of(fusion: Fusion, folder: str, searches: Mapping[str, Search]) -> Hybrid:
    """
    Put encoders into a fitted hybrid, in the place of the retriever that is not named.

    :param folder: Where the fusion was read.
    :param searches: The searches of all other retrievers, by the names of the fitting.
    :raises ValueError: If the fusion was fitted for others.
    """
    places = [retriever for retriever in fusion.retrievers if retriever.name not in searches]
    if len(places) != 1 or len(searches) != len(fusion.retrievers) - 1:
        msg = (
            f"The fusion {folder} was fitted for {', '.join(fusion.names)}, and here an encoder is joined with "
            f"{', '.join(searches)}: take a fusion that was fitted for these and one more, the encoder."
        )
        raise ValueError(msg)
    weights = ", ".join(f"{retriever.name} {retriever.weight:.2f}" for retriever in fusion.retrievers)
    told = f"{folder}: weights {weights}, scale {fusion.scale}, {fusion.top_k} documents of each retriever"
    return Hybrid(f"{told}; encoders stand for {places[0].name}", partial(_measured, fusion, places[0], searches))


def _measured(
    fusion: Fusion,
    place: Retriever,
    searches: Mapping[str, Search],
    systems: list[System],
    index: IndexView,
    queries: dict[str, str],
    qrels: Qrels,
) -> dict[str, dict[str, Measured]]:
    """What the encoders and the other retrievers find, alone and joined; see `Hybrid.measure`."""
    logger.info("Searching for %d queries with %s.", len(qrels), " and ".join(searches))
    found = {name: _found(find, index, queries, qrels) for name, find in searches.items()}
    _check(fusion, found, index)
    runs: dict[str, dict[str, Run]] = defaultdict(dict)
    timed: dict[str, dict[str, Search]] = defaultdict(dict)
    for system in systems:
        run = run_of(system, index, queries, qrels, fusion.top_k)
        by_name = found | {place.name: {key: _best_first(scores, place) for key, scores in run.items()}}
        lists = {key: {name: by_name[name][key] for name in fusion.names} for key in qrels}
        dense = partial(_search, system, index, fusion.top_k, place)
        ways = searches_of(fusion, {name: searches.get(name, dense) for name in fusion.names})
        for way, joined in runs_of(fusion, lists, {}).items():
            group = ALONE if way in fusion.names else way
            name = way if way in searches else system.name
            runs[group][name], timed[group][name] = joined, ways[way]
    return {group: measured_ways(runs[group], timed[group], queries, qrels) for group in runs}


def _found(find: Search, index: IndexView, queries: dict[str, str], qrels: Qrels) -> dict[str, Ranked]:
    """What a retriever finds for the judged queries; a query that is a document of the index does not find itself."""
    own, lists = own_rows(index, queries, qrels), dict[str, Ranked]()
    for key in qrels:
        itself = index.ids[own[key]] if key in own else None
        lists[key] = {document: score for document, score in find(queries[key]).items() if document != itself}
    return lists


def _search(system: System, index: IndexView, top_k: int, place: Retriever, query: str) -> Ranked:
    """What an encoder finds for a query."""
    return _best_first(search(index, [""], system.encode([query]), top_k)[""], place)


def _best_first(scores: Mapping[str, float], place: Retriever) -> Ranked:
    """A list as a retriever in this place gives it: its scores are distances, if those rose in fitting."""
    sign = 1 if place.falls else -1
    return {document: sign * scores[document] for document in ranking(scores)}


def _check(fusion: Fusion, found: Mapping[str, Mapping[str, Ranked]], index: IndexView) -> None:
    """Refuse retrievers that search other documents, or are others than in fitting."""
    ids = set(index.ids)
    for retriever in (one for one in fusion.retrievers if one.name in found):
        lists = list(found[retriever.name].values())
        if describe(retriever.name, lists).falls != retriever.falls:
            before, now = ("fell", "rise") if retriever.falls else ("rose", "fall")
            msg = (
                f"The scores of the retriever {retriever.name!r} {now} along its lists, and {before} when the fusion "
                "was fitted: give the retriever that it was fitted with, or fit it again."
            )
            raise ValueError(msg)
        if not any(ids & ranked.keys() for ranked in lists):
            msg = (
                f"The retriever {retriever.name!r} found no document of the index, in {len(lists)} queries: all must "
                "search the same documents, under the same ids."
            )
            raise ValueError(msg)
