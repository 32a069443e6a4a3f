"""A student before a store that ranks otherwise than the index it was made for finds the wrong documents, silently."""

import inspect
import logging
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any, NotRequired

import numpy as np
from haystack import Document
from haystack.document_stores.errors import DocumentStoreError
from typing_extensions import TypedDict

from haystack_distill.data.similarity import rank_alike
from haystack_distill.files.layout import PROVENANCE
from haystack_distill.files.shapes import read_json
from haystack_integrations.components.distill.stores import Ranking, UnknownRankingError, ranking_of, store_of
from haystack_integrations.components.distill.stores.known import kind_of
from haystack_integrations.components.distill.stores.reading import in_one_line

logger = logging.getLogger(__name__)

PROBES = 3


class MadeFor(TypedDict, total=False):
    """What a student says of the index that it was made for."""

    fingerprint: str
    dim: int
    similarity: str
    normalized: bool


class _Provenance(TypedDict):
    index: NotRequired[MadeFor]


class SimilarityGuard:
    """
    Makes sure, once, that a store ranks like the index that a student was made for.

    `passed` says whether nothing is left to check; it stays False as long as the store holds fewer than two vectors.
    """

    def __init__(self) -> None:
        self.passed = False
        self._warned = False

    def check(self, query_encoder: Any, retriever: Any) -> None:
        """
        Search the store with random vectors and look at the order of what it returns, unless that was done before.

        :param query_encoder: Is checked if its `model` is the folder of a student.
        :raises DocumentStoreError: If the store can't be searched now.
        :raises ValueError: If the store holds vectors of another length, or ranks otherwise; the message says what to
            do.
        """
        self.passed = self.passed or self._passes(query_encoder, retriever)

    def _passes(self, query_encoder: Any, retriever: Any) -> bool:
        folder, store = getattr(query_encoder, "model", None), store_of(retriever)
        made_for = made_for_index(folder)
        if not {"dim", "similarity", "normalized"} <= made_for.keys() or store is None:
            return True
        queries = np.random.default_rng(0).normal(size=(PROBES, made_for["dim"])) / made_for["dim"] ** 0.5
        try:
            ranking = ranking_of(store, partial(_search, retriever), queries)
        except UnknownRankingError as error:  # a retriever may reorder on purpose
            logger.warning("%s So %s was not checked against it.", error, folder)
            return True
        except Exception as error:
            raise _failed_search(store, folder, made_for["dim"], error) from error
        if ranking is None:
            if not self._warned:
                text = "%s is empty or gives no vectors; %s was not checked against it yet, but will be when it does."
                logger.warning(text, type(store).__name__, folder)
            self._warned = True
            return False
        if not rank_alike((made_for["similarity"], made_for["normalized"]), (ranking.similarity, ranking.normalized)):
            raise ValueError(_misfit(folder, made_for, store, ranking))
        return True


def made_for_index(model: Any) -> MadeFor:
    """
    Read what the folder of an encoder says of its index; nothing where it is no folder, or says nothing.

    :raises ValueError: If what it says is damaged.
    """
    file = Path(model) / PROVENANCE if isinstance(model, str | Path) else None
    if file is None or not file.is_file():
        return {}
    return read_json(file, _Provenance, "copy the model again, or align again.").get("index", {})


def _search(retriever: Any, query: list[float], top_k: int) -> list[Document]:
    inputs = inspect.signature(retriever.run).parameters
    wants = {"return_embedding": True} if "return_embedding" in inputs else {}
    documents: list[Document] = retriever.run(query_embedding=query, top_k=top_k, **wants)["documents"]
    return documents


def _failed_search(store: Any, folder: Any, dim: int, error: Exception) -> Exception:
    """Tell an encoder of another index from a store that is down: clients raise what they like for both."""
    name, cause, held = type(store).__name__, in_one_line(error), None
    with suppress(Exception):
        held = _dim_of(store)
    if held not in (None, dim):
        return ValueError(
            f"{name} can't be searched as the query encoder {folder} needs it, with vectors of {dim} dimensions: it "
            f"holds vectors of {held} ({cause}). Put the encoder before the index it was made for."
        )
    return DocumentStoreError(
        f"{name} could not be searched with vectors of {dim} dimensions ({cause}), so the query encoder {folder} was "
        "not checked against it: make sure that the store is up and answers in time."
    )


def _dim_of(store: Any) -> int | None:
    """Read the length of a store's vectors off its first page; None for unknown stores, whose first page is all."""
    kind = kind_of(store)
    rows = next(kind.read(store, lambda call: call()), []) if kind.name else []
    return next((len(row.vector) for row in rows if row.vector is not None), None)


def _misfit(folder: Any, made_for: MadeFor, store: Any, ranking: Ranking) -> str:
    trained, served = (
        f"{similarity} over vectors {'' if normalized else 'not '}of length 1"
        for similarity, normalized in (
            (made_for["similarity"], made_for["normalized"]),
            (ranking.similarity, ranking.normalized),
        )
    )
    return (
        f"The query encoder {folder} was made for an index that ranks by {trained}, and {type(store).__name__} ranks "
        f"by {served}: results would be wrong without a word. Create the store with {made_for['similarity']} and write "
        "the documents to it again, or make an encoder for this store with KaleAligner."
    )
