"""Documents of several retrievers joined by a fitted fusion."""

from collections.abc import Mapping
from dataclasses import replace

from haystack import Document

from haystack_distill.fusion.model import Fusion
from haystack_integrations.components.distill.parts.searching import ranked

SCORES = "retriever_scores"
"""Meta field: retriever -> its own score of the document."""


def joined(fusion: Fusion, found: Mapping[str, list[Document]], top_k: int | None) -> list[Document]:
    """
    Join the documents of named retrievers.

    :returns: Copies with the fused score in `score` and `meta["retriever_scores"]`, the best first.
    :raises ValueError: See `Fusion.join`.
    """
    lists = {name: ranked(documents[: fusion.top_k]) for name, documents in found.items()}
    # Where retrievers return more or less of a document, such as its vector, the first one's is taken.
    in_order = [found[name] for name in reversed(fusion.names) if name in found]
    documents = {document.id: document for each in in_order for document in each}
    scores = list(fusion.join(lists).items())[:top_k]
    return [_scored(documents[key], score, lists) for key, score in scores]


def _scored(document: Document, score: float, lists: Mapping[str, Mapping[str, float]]) -> Document:
    own = {name: scores[document.id] for name, scores in lists.items() if document.id in scores}
    return replace(document, score=score, meta={**document.meta, SCORES: own})
