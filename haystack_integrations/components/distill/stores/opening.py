"""From a store and what is known of its embedder to an index and its encoder."""

import logging
import shutil
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from haystack.utils import ComponentDevice

from haystack_distill.data.index import IndexView, Page, Sample, read_index
from haystack_integrations.components.distill.stores.embedder_settings import EmbedderSettings
from haystack_integrations.components.distill.stores.known import kind_of
from haystack_integrations.components.distill.stores.ranking import ranking_of, similarity_of
from haystack_integrations.components.distill.stores.reading import pages_of

if TYPE_CHECKING:
    from haystack_distill.students.bi_encoder import BiEncoder

logger = logging.getLogger(__name__)

PROBES = 8
"""How many stored vectors the store is searched with to see how it ranks."""


def index_of(
    store: Any,
    embedder: EmbedderSettings,
    folder: Path,
    judged: Iterable[str] = (),
    max_documents: int | None = None,
) -> IndexView:
    """
    Copy the index that a store holds, anew where a killed run left a copy: the store may have changed since.

    :param judged: Ids of documents that a sample must hold.
    :param max_documents: Of a larger index about this many documents are held.
    :raises DocumentStoreError: If the store can't be read to its end.
    :raises ValueError: See `read_index`; and if the store is empty or ranks otherwise than `embedder` says.
    """
    shutil.rmtree(folder, ignore_errors=True)
    pages = filled_pages_of(store, embedder.meta_fields_to_embed, embedder.embedding_separator)
    sample = _sample(store, max_documents, judged)

    def found_out(vectors: np.ndarray) -> str:
        return verified_similarity(store, vectors, embedder.similarity)

    return read_index(pages, folder, found_out, sample)


def filled_pages_of(store: Any, meta_fields: Sequence[str] = (), separator: str = "\n") -> Iterator[Page]:
    """Read a store, see `pages_of`; a ValueError, at once, if it holds no documents."""
    pages = pages_of(store, meta_fields, separator)
    first = next((page for page in pages if page), None)
    if first is None:
        msg = (
            f"{type(store).__name__} holds no documents: run the indexing pipeline first. If it was run: each "
            f"component of a YAML gets a store of its own, so {kind_of(store).shared_by}."
        )
        raise ValueError(msg)
    return chain([first], pages)


def verified_similarity(store: Any, vectors: np.ndarray, given: str | None = None) -> str:
    """
    Find out how a store ranks by searching it with vectors that it holds.

    :raises ValueError: If the store ranks otherwise than the user says, or by something not known here.
    """
    search = kind_of(store).search(store)
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


def teacher_of(embedder: EmbedderSettings, device: ComponentDevice | None) -> "BiEncoder":
    """Load the encoder of an index, so that it embeds as the index was embedded."""
    # Takes seconds to import, which a query pipeline need not wait for.
    from haystack_distill.students.bi_encoder import BiEncoder

    loading = dict(embedder.loading or {})
    if loading.get("token"):
        loading["token"] = loading["token"].resolve_value()
    encoder = BiEncoder.load(
        embedder.model,
        query_prefix=embedder.query_prefix,
        document_prefix=embedder.document_prefix,
        normalize=embedder.normalize_embeddings,
        dim=embedder.truncate_dim,
        device=ComponentDevice.resolve_device(device).to_torch_str(),
        **loading,
    )
    if embedder.loading is None:
        return encoder
    # A document embedder calls `encode`, which puts the model's default prompt before everything.
    prompt = encoder.model.prompts.get(encoder.model.default_prompt_name or "") or ""
    return replace(encoder, document_prefix=prompt + encoder.document_prefix)
