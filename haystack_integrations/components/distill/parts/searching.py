"""Several named retrievers of Haystack, asked for the same query."""

import asyncio
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context
from functools import partial
from typing import Any

from haystack import Document

from haystack_distill.evaluation.measures import MEASURES
from haystack_distill.fusion.baselines import BASELINES, FITTED
from haystack_integrations.components.distill.parts.inner import inputs_of
from haystack_integrations.components.distill.parts.tracing import span

TAKEN = {FITTED, *BASELINES, *(measure.key for measure in MEASURES)}
"""Names that stand for something else in the figures."""


def check_named(retrievers: Mapping[str, Any]) -> None:
    """
    Refuse what is no set of named text retrievers that can be joined.

    :raises ValueError: If there are fewer than two, a name is taken, or one searches with a vector.
    """
    if len(retrievers) < 2:
        msg = f"A hybrid joins at least two retrievers, and {len(retrievers)} came: give name -> retriever."
        raise ValueError(msg)
    check_take_text(retrievers)


def check_take_text(retrievers: Mapping[str, Any]) -> None:
    """Refuse retrievers of which a name is taken, or that search with a vector, with a ValueError."""
    for name, retriever in retrievers.items():
        if not name.isidentifier() or name in TAKEN:
            msg = (
                f"{name!r} can't name a retriever: take letters, digits and _, and none of {', '.join(sorted(TAKEN))}."
            )
            raise ValueError(msg)
        if "query" not in inputs_of(retriever):
            msg = (
                f"The retriever {name!r}, a {type(retriever).__name__}, takes no query text: put an embedding "
                "retriever into a DistilledRetriever with its query encoder."
            )
            raise ValueError(msg)


def searches(retrievers: Mapping[str, Any], top_k: int) -> dict[str, Callable[[str], dict[str, float]]]:
    """Retriever -> its search: a query -> document id -> score, the best first."""

    def one(retriever: Any, query: str) -> dict[str, float]:
        return ranked(search(retriever, query, top_k))

    return {name: partial(one, retriever) for name, retriever in retrievers.items()}


def search(retriever: Any, query: str, top_k: int, filters: dict[str, Any] | None = None) -> list[Document]:
    """What one retriever finds, `top_k` documents at most."""
    documents: list[Document] = retriever.run(query=query, **_options(retriever, top_k, filters))["documents"]
    return documents[:top_k]


def search_all(
    retrievers: Mapping[str, Any], query: str, top_k: int, filters: dict[str, Any] | None, pool: ThreadPoolExecutor
) -> dict[str, list[Document]]:
    """What each finds, all at once, each in a span of its own."""

    def one(name: str) -> list[Document]:
        with span("retrieve", retriever=name):
            return search(retrievers[name], query, top_k, filters)

    # A thread knows the span that is open only in a copy of the context.
    begun = {name: pool.submit(copy_context().run, one, name) for name in retrievers}
    return {name: each.result() for name, each in begun.items()}


async def search_all_async(
    retrievers: Mapping[str, Any], query: str, top_k: int, filters: dict[str, Any] | None
) -> dict[str, list[Document]]:
    """What each finds, all at once, each in a span of its own, without blocking the event loop."""

    async def one(name: str) -> list[Document]:
        retriever = retrievers[name]
        with span("retrieve", retriever=name):
            if not hasattr(retriever, "run_async"):
                return await asyncio.to_thread(search, retriever, query, top_k, filters)
            found = await retriever.run_async(query=query, **_options(retriever, top_k, filters))
            return list(found["documents"][:top_k])

    found = await asyncio.gather(*(one(name) for name in retrievers))
    return dict(zip(retrievers, found, strict=True))


def ranked(documents: list[Document]) -> dict[str, float]:
    """Document id -> score, the best first; a document that comes twice counts where it comes first."""
    scores: dict[str, Any] = {}
    for document in documents:
        scores.setdefault(document.id, document.score)
    return scores


def _options(retriever: Any, top_k: int, filters: dict[str, Any] | None) -> dict[str, Any]:
    options: dict[str, Any] = {"top_k": top_k} if "top_k" in inputs_of(retriever) else {}
    return options if filters is None else options | {"filters": filters}
