# SPDX-FileCopyrightText: 2026-present haystack-distill contributors
#
# SPDX-License-Identifier: Apache-2.0

"""A student before a store that ranks otherwise than the index it was made for finds the wrong documents, silently."""

import inspect
import json
import logging
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from haystack import Document

from haystack_distill.data.similarity import rank_alike
from haystack_distill.files.layout import PROVENANCE
from haystack_integrations.components.distill.stores import Ranking, UnknownRankingError, ranking_of, store_of
from haystack_integrations.components.distill.stores.reading import in_one_line

logger = logging.getLogger(__name__)

PROBES = 3


def check_fits(query_encoder: Any, retriever: Any) -> bool:
    """
    Make sure that a store ranks like the index that a student was made for, by searching it with random vectors.

    :param query_encoder: Has a `model`; one that is no student's folder is not checked.
    :param retriever: An embedding retriever.
    :returns: Whether there is nothing left to check; False as long as the store is empty.
    :raises ValueError: If the store holds vectors of another length, or ranks otherwise; the message says what to do.
    """
    folder, store = getattr(query_encoder, "model", None), store_of(retriever)
    made_for = _made_for(folder)
    if made_for is None or store is None:
        return True
    queries = np.random.default_rng(0).normal(size=(PROBES, made_for["dim"])) / made_for["dim"] ** 0.5
    try:
        ranking = ranking_of(store, partial(_search, retriever), queries)
    except UnknownRankingError as error:  # a retriever may reorder on purpose
        logger.warning("%s So %s was not checked against it.", error, folder)
        return True
    except Exception as error:
        msg = (
            f"{type(store).__name__} can't be searched as the query encoder {folder} needs it, with vectors of "
            f"{made_for['dim']} dimensions ({in_one_line(error)}): put the encoder before the index it was made for."
        )
        raise ValueError(msg) from error
    if ranking is None:
        logger.warning("%s is empty or gives no vectors; %s was not checked against it.", type(store).__name__, folder)
        return bool(store.count_documents() > 1)
    if not rank_alike((made_for["similarity"], made_for["normalized"]), (ranking.similarity, ranking.normalized)):
        raise ValueError(_misfit(folder, made_for, store, ranking))
    return True


def _made_for(folder: Any) -> dict[str, Any] | None:
    file = Path(folder) / PROVENANCE if isinstance(folder, str | Path) else None
    if file is None or not file.is_file():
        return None
    try:
        index = json.loads(file.read_text(encoding="utf-8")).get("index", {})
        return index if {"dim", "similarity", "normalized"} <= index.keys() else None
    except (ValueError, AttributeError) as error:
        msg = f"{file} is damaged ({error}): copy the model again, or align again."
        raise ValueError(msg) from error


def _search(retriever: Any, query: list[float], top_k: int) -> list[Document]:
    inputs = inspect.signature(retriever.run).parameters
    wants = {"return_embedding": True} if "return_embedding" in inputs else {}
    documents: list[Document] = retriever.run(query_embedding=query, top_k=top_k, **wants)["documents"]
    return documents


def _misfit(folder: Any, made_for: dict[str, Any], store: Any, ranking: Ranking) -> str:
    trained, found = (
        f"{similarity} over vectors {'' if normalized else 'not '}of length 1"
        for similarity, normalized in (
            (made_for["similarity"], made_for["normalized"]),
            (ranking.similarity, ranking.normalized),
        )
    )
    return (
        f"The query encoder {folder} was made for an index that ranks by {trained}, and {type(store).__name__} ranks "
        f"by {found}: results would be wrong without a word. Create the store with {made_for['similarity']} and write "
        "the documents to it again, or make an encoder for this store with KaleAligner."
    )
