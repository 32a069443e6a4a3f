# SPDX-FileCopyrightText: 2026-present haystack-distill contributors
#
# SPDX-License-Identifier: Apache-2.0

"""From a component's settings to an index and its encoder."""

import logging
from collections.abc import Iterable
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from haystack.utils import ComponentDevice

from haystack_distill.data.index import IndexView, Sample, read_index
from haystack_integrations.components.distill.stores.ranking import ranking_of, search_of, similarity_of
from haystack_integrations.components.distill.stores.reading import pages_of

if TYPE_CHECKING:
    from haystack_distill.students.bi_encoder import BiEncoder

logger = logging.getLogger(__name__)

PROBES = 8
"""Stored vectors that the store is searched with to see how it ranks."""


def index_of(component: Any, folder: Path, judged: Iterable[str] = ()) -> IndexView:
    """
    Copy the index that a component is about.

    :param component: Has a `document_store`, `similarity`, `meta_fields_to_embed` and `embedding_separator`; if it has
        `max_documents`, a larger index is sampled.
    :param folder: The folder to make.
    :param judged: Ids of documents that a sample must hold.
    :returns: The copy.
    :raises DocumentStoreError: If the store can't be read to its end.
    :raises ValueError: See `read_index`; and if the store is empty or ranks otherwise than the component says.
    """
    store = component.document_store
    pages = pages_of(store, component.meta_fields_to_embed, component.embedding_separator)
    first = next((page for page in pages if page), None)
    if first is None:
        raise ValueError(_empty(store))
    sample = _sample(store, getattr(component, "max_documents", None), judged)

    def found_out(vectors: np.ndarray) -> str:
        return verified_similarity(store, vectors, component.similarity)

    return read_index(chain([first], pages), folder, found_out, sample)


def verified_similarity(store: Any, vectors: np.ndarray, given: str | None = None) -> str:
    """
    Find out how a store ranks by searching it with vectors that it holds.

    :param store: The document store.
    :param vectors: Vectors in it, `[documents, dim]`.
    :param given: What the user says.
    :returns: `cosine`, `dot_product` or `euclidean`.
    :raises ValueError: If the store ranks otherwise than the user says, or by something not known here.
    """
    search = search_of(store)
    queries = vectors[:: max(1, len(vectors) // PROBES)][:PROBES]
    ranking = ranking_of(store, search, queries) if search else None
    if ranking is None:
        similarity = given or similarity_of(store)
        logger.info("%s could not be probed; %s is taken for its similarity.", type(store).__name__, similarity)
        return similarity
    if given and given in ranking.shares and ranking.shares[given] < ranking.shares[ranking.similarity] - 0.01:
        msg = (
            f"`similarity` is {given!r}, but {type(store).__name__} ranks by {ranking.similarity} (it explains "
            f"{ranking.shares[ranking.similarity]:.0%} of the order of its results, {given} {ranking.shares[given]:.0%}"
            "): leave `similarity` out."
        )
        raise ValueError(msg)
    return given or ranking.similarity


def _sample(store: Any, most: int | None, judged: Iterable[str]) -> Sample:
    count = store.count_documents()
    if most is None or count <= most:
        return Sample()
    logger.info("%d of the %d documents are sampled; `max_documents` says how many.", most, count)
    return Sample(most / count, frozenset(judged))


def _empty(store: Any) -> str:
    kind = type(store).__name__
    shared = {
        "InMemoryDocumentStore": "give both the same `index`, and run both pipelines in one process",
        "FAISSDocumentStore": "call `save` after indexing and give both the same `index_path`",
        "QdrantDocumentStore": "give both the same `index`, and the same `path` or `url` (not `:memory:`)",
        "ChromaDocumentStore": "give both the same `collection_name`, and the same `persist_path` or `host`",
    }.get(kind, "make sure that both name the same server and the same index")
    return (
        f"{kind} can't be aligned with: it holds no documents. Run the indexing pipeline first. If it was run: each "
        f"component of a YAML gets a store of its own, so {shared}."
    )


def teacher_of(component: Any) -> "BiEncoder":
    """
    Load the encoder of the index that a component is about, with the settings of its document embedder.

    :param component: Has a `teacher` and those settings.
    :returns: The teacher.
    """
    # Takes seconds to import, which a query pipeline need not wait for.
    from haystack_distill.students.bi_encoder import BiEncoder

    return BiEncoder.load(
        component.teacher,
        query_prefix=component.query_prefix,
        document_prefix=component.document_prefix,
        normalize=component.normalize_embeddings,
        dim=component.truncate_dim,
        device=ComponentDevice.resolve_device(component.device).to_torch_str(),
    )


def init_parameters(component: Any) -> dict[str, Any]:
    """
    The init parameters of a component that keeps each under its own name, ready for `default_to_dict`.

    :param component: The component; its store and its device are serialised.
    """
    own = {name: value for name, value in vars(component).items() if not name.startswith("_")}
    device = own.pop("device")
    return {**own, "document_store": component.document_store.to_dict(), "device": device.to_dict() if device else None}
