# SPDX-FileCopyrightText: 2026-present haystack-distill contributors
#
# SPDX-License-Identifier: Apache-2.0

"""What is already in an index: ids, texts and vectors, read once into a memory-mapped matrix and never written back."""

import hashlib
import json
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from haystack_distill.folders import published

SIMILARITIES = ("cosine", "dot_product", "euclidean")

Page = list[tuple[str, str | None, list[float] | np.ndarray | None]]
"""Some of an index: (id, text, vector); a text or a vector may be missing."""


@dataclass(frozen=True)
class IndexView:
    """
    The vectors of an index as they are, with the ids and the texts they belong to.

    :param ids: The ids in the store.
    :param texts: The texts, empty where a document has none.
    :param vectors: `[documents, dim]`, float32.
    :param similarity: How the store ranks: `cosine`, `dot_product` or `euclidean`.
    :param fingerprint: SHA-256 over ids and vectors in the order of the ids: changes when the index does.
    :param without_vector: How many documents were left out because they have no vector.
    """

    ids: list[str]
    texts: list[str]
    vectors: np.ndarray
    similarity: str
    fingerprint: str
    without_vector: int = 0

    def __len__(self) -> int:
        """The number of documents with a vector."""
        return len(self.ids)

    @property
    def dim(self) -> int:
        """The length of a vector."""
        return int(self.vectors.shape[1])

    @property
    def normalized(self) -> bool:
        """Whether all vectors have length 1 (to 1e-3), looked at on up to 2,000 of them."""
        sample = self.vectors[:: max(1, len(self) // 2000)]
        return bool(np.all(np.abs(np.linalg.norm(sample, axis=1) - 1) < 1e-3))

    @property
    def ranking_vectors(self) -> np.ndarray:
        """The vectors in the form whose inner product with a query ranks as the store does. `[documents, dim]`."""
        if self.similarity == "cosine" and not self.normalized:
            return self.vectors / np.linalg.norm(self.vectors, axis=1, keepdims=True)
        return self.vectors


def read_index(pages: Iterable[Page], folder: str | Path, similarity: str) -> IndexView:
    """
    Copy an index, page by page, into a folder that appears only when all of it was read.

    :param pages: The documents; memory holds one page at a time.
    :param folder: The folder to make.
    :param similarity: How the store ranks.
    :returns: The view, its vectors memory-mapped.
    :raises ValueError: If there is no document or no vector, if two vectors differ in dimension, if a vector is
        all zeros or holds a value that is not finite, if two documents share an id, or if vectors of different
        lengths are ranked by euclidean distance.
    """
    if similarity not in SIMILARITIES:
        msg = f"The similarity {similarity!r} is not known: expected one of {', '.join(SIMILARITIES)}."
        raise ValueError(msg)
    with published(folder) as unfinished:
        ids, missing = _write_pages(pages, unfinished)
        if not ids:
            how = f"all {missing} documents lack an embedding" if missing else "it holds no documents"
            msg = f"The document store can't be aligned with: {how}. Run the indexing pipeline first."
            raise ValueError(msg)
        summary = {"documents": len(ids), "similarity": similarity, "without_vector": missing}
        (unfinished / "index.json").write_text(json.dumps(summary), encoding="utf-8")
    return open_index(folder)


def open_index(folder: str | Path) -> IndexView:
    """
    Open a folder that `read_index` made.

    :param folder: The folder.
    :returns: The view, its vectors memory-mapped.
    :raises FileNotFoundError: If a part is missing.
    :raises ValueError: If a part is truncated, or the vectors can't be ranked as the store claims to.
    """
    path = Path(folder)
    summary = json.loads((path / "index.json").read_text(encoding="utf-8"))
    rows = [json.loads(line) for line in (path / "documents.jsonl").read_text(encoding="utf-8").splitlines()]
    flat = np.memmap(path / "vectors.f32", dtype=np.float32, mode="r")
    if len(rows) != summary["documents"] or flat.size % max(1, len(rows)):
        msg = f"The copy of the index in {path} is truncated: delete the folder and run again."
        raise ValueError(msg)
    vectors = flat.reshape(len(rows), -1)
    ids = [row["id"] for row in rows]
    view = IndexView(
        ids,
        [row["text"] for row in rows],
        vectors,
        summary["similarity"],
        _fingerprint(ids, vectors),
        summary["without_vector"],
    )
    if view.similarity == "euclidean" and not view.normalized:
        msg = (
            "The store ranks by euclidean distance and its vectors are not normalised, so inner products, which all "
            "losses here use, would rank otherwise: index normalised vectors, or use cosine or dot product."
        )
        raise ValueError(msg)
    return view


def _write_pages(pages: Iterable[Page], folder: Path) -> tuple[list[str], int]:
    ids: list[str] = []
    known: set[str] = set()
    missing, dim = 0, None
    with (folder / "documents.jsonl").open("w", encoding="utf-8") as texts, (folder / "vectors.f32").open("wb") as out:
        for document_id, text, vector in _documents(pages):
            if vector is None:
                missing += 1
                continue
            row = np.asarray(vector, dtype=np.float32)
            dim = dim or len(row)
            _check_vector(document_id, row, dim)
            if document_id in known:
                msg = f"The document store returned the document {document_id!r} twice; its ids must be unique."
                raise ValueError(msg)
            known.add(document_id)
            ids.append(document_id)
            texts.write(json.dumps({"id": document_id, "text": text or ""}, ensure_ascii=False) + "\n")
            out.write(row.tobytes())
    return ids, missing


def _documents(pages: Iterable[Page]) -> Iterator[Any]:
    for page in pages:
        yield from page


def _check_vector(document_id: str, vector: np.ndarray, dim: int) -> None:
    if len(vector) != dim:
        fault = f"has {len(vector)} dimensions and the ones before it have {dim}"
    elif not np.all(np.isfinite(vector)):
        fault = "holds NaN or infinite values"
    elif not np.any(vector):
        fault = "is all zeros"
    else:
        return
    msg = f"The vector of the document {document_id!r} {fault}: embed this document again, or delete it from the store."
    raise ValueError(msg)


def _fingerprint(ids: list[str], vectors: np.ndarray) -> str:
    digest = hashlib.sha256()
    for row in sorted(range(len(ids)), key=ids.__getitem__):
        digest.update(ids[row].encode())
        digest.update(vectors[row].tobytes())
    return digest.hexdigest()


def stored_vectors(file: Path, texts: list[str], encode: Callable[[], np.ndarray]) -> np.ndarray:
    """
    Embed texts once: a file beside the vectors tells whether they belong to these texts.

    :param file: Where the vectors are kept, `.npy`.
    :param texts: What the vectors depend on.
    :param encode: Makes the vectors.
    :returns: The vectors, memory-mapped.
    """
    digest = hashlib.sha256("\0".join(texts).encode()).hexdigest()
    mark = file.with_suffix(".sha256")
    if not (file.exists() and mark.exists() and mark.read_text() == digest):
        file.parent.mkdir(parents=True, exist_ok=True)
        mark.unlink(missing_ok=True)
        np.save(file, encode())
        mark.write_text(digest)
    vectors: np.ndarray = np.load(file, mmap_mode="r")
    return vectors
