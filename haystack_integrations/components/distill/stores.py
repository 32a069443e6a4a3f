# SPDX-FileCopyrightText: 2026-present haystack-distill contributors
#
# SPDX-License-Identifier: Apache-2.0

"""From a component's settings to an index and its encoder. What differs between document stores is known here."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from haystack import Document
from haystack.utils import ComponentDevice

from haystack_distill.index import SIMILARITIES, IndexView, Page, read_index

if TYPE_CHECKING:
    from haystack_distill.teachers.bi_encoder import BiEncoderTeacher

PAGE = 1000

_NAMES = {
    "dot_product": "dot_product",
    "inner_product": "dot_product",
    "ip": "dot_product",
    "cosine": "cosine",
    "cosine_similarity": "cosine",
    "l2": "euclidean",
    "l2_distance": "euclidean",
    "l2_norm": "euclidean",
    "euclidean": "euclidean",
}
"""What stores call their similarities -> what they are called here."""

_ATTRIBUTES = ("embedding_similarity_function", "similarity", "vector_function", "_distance_function")
"""Where InMemory, Qdrant and Elasticsearch, pgvector, and Chroma keep theirs."""


def similarity_of(store: Any) -> str:
    """
    How a store ranks.

    :param store: The document store.
    :returns: `cosine`, `dot_product` or `euclidean`.
    :raises ValueError: If the store does not say, or names something else.
    """
    if type(store).__name__ in {"FAISSDocumentStore", "MilvusDocumentStore"}:  # both rank by L2 unless told otherwise
        return "euclidean"
    for attribute in _ATTRIBUTES:
        name = getattr(store, attribute, None)
        if isinstance(name, str):
            if name.lower() in _NAMES:
                return _NAMES[name.lower()]
            msg = f"{type(store).__name__} ranks by {name!r}, which is none of {', '.join(SIMILARITIES)}."
            raise ValueError(msg)
    msg = f"{type(store).__name__} does not say how it ranks: set `similarity` to one of {', '.join(SIMILARITIES)}."
    raise ValueError(msg)


def pages_of(store: Any, meta_fields: Sequence[str] = (), separator: str = "\n") -> Iterator[Page]:
    """
    Read all documents of a store with their vectors; nothing is written.

    :param store: The document store.
    :param meta_fields: Meta fields that were embedded with the content, as in the document embedder.
    :param separator: What stands between them, as in the document embedder.
    :returns: Pages of (id, text as it was embedded, vector).
    """
    documents = store.filter_documents()
    for start in range(0, len(documents), PAGE):
        yield [
            (document.id, _embedded_text(document, meta_fields, separator), document.embedding)
            for document in documents[start : start + PAGE]
        ]


def _embedded_text(document: Document, meta_fields: Sequence[str], separator: str) -> str:
    fields = [str(document.meta[name]) for name in meta_fields if document.meta.get(name)]
    return separator.join([*fields, document.content or ""])


def index_of(component: Any, folder: Path) -> IndexView:
    """
    Copy the index that a component is about.

    :param component: Has a `document_store`, `similarity`, `meta_fields_to_embed` and `embedding_separator`.
    :param folder: The folder to make.
    :returns: The copy.
    :raises ValueError: See `read_index`.
    """
    store = component.document_store
    pages = pages_of(store, component.meta_fields_to_embed, component.embedding_separator)
    return read_index(pages, folder, component.similarity or similarity_of(store))


def teacher_of(component: Any) -> "BiEncoderTeacher":
    """
    Load the encoder of the index that a component is about, with the settings of its document embedder.

    :param component: Has a `teacher` and those settings.
    :returns: The teacher.
    """
    # Takes seconds to import, which a query pipeline need not wait for.
    from haystack_distill.teachers.bi_encoder import BiEncoderTeacher

    return BiEncoderTeacher.load(
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
