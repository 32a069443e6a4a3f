"""What is already in an index: ids, texts and vectors, read once into a memory-mapped matrix and never written back."""

import hashlib
import json
import logging
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import NotRequired

import numpy as np
from typing_extensions import TypedDict

from haystack_distill.data.similarity import SIMILARITIES, has_length_one
from haystack_distill.files.folders import published, written
from haystack_distill.files.runs import fingerprint
from haystack_distill.files.shapes import checked, read_json, refuse_halves

logger = logging.getLogger(__name__)

Vector = list[float] | np.ndarray | None
Page = list[tuple[str, str | None, Vector] | tuple[str, str | None, Vector, str]]
"""A part of an index: (id, text, vector), and the title that a text begins with; a text or a vector may be missing."""

Similarity = str | Callable[[np.ndarray], str]
"""`cosine`, `dot_product` or `euclidean`, or a function that tells which once the vectors are read."""


class Document(TypedDict):
    """A line of `documents.jsonl`; not all documents have a title."""

    id: str
    text: str
    title: NotRequired[str]


class Summary(TypedDict):
    """What `index.json` holds, see `IndexView`; `held` is the fingerprint of the documents that are held."""

    documents: int
    similarity: str
    fingerprint: str
    held: str
    without_vector: int
    without_vector_ids: list[str]
    sampled_from: int


NAMED = 10
"""How many documents without a vector are named."""


@dataclass(frozen=True)
class IndexView:
    """
    The vectors of an index as they are, with the ids and the texts they belong to.

    :param texts: Empty where a document has none.
    :param vectors: `[documents, dim]`, float32.
    :param similarity: How the store ranks: `cosine`, `dot_product` or `euclidean`.
    :param fingerprint: Over ids and vectors of the whole index in any order: changes when the index does.
    :param without_vector: How many documents were left out because they have no vector.
    :param without_vector_ids: The ids of the first of them.
    :param sampled_from: How many documents with a vector the index has; the view may hold a sample of them.
    :param titles: Id -> the title that the text begins with, of the documents that have one.
    """

    ids: list[str]
    texts: list[str]
    vectors: np.ndarray
    similarity: str
    fingerprint: str
    without_vector: int = 0
    without_vector_ids: tuple[str, ...] = ()
    sampled_from: int = 0
    titles: dict[str, str] = field(default_factory=dict)

    def __len__(self) -> int:
        """The number of documents with a vector."""
        return len(self.ids)

    @property
    def dim(self) -> int:
        """The length of a vector."""
        return int(self.vectors.shape[1])

    @property
    def normalized(self) -> bool:
        """Whether all vectors have length 1 (to 1e-3), judged by up to 2,000 of them."""
        return has_length_one(self.vectors[:: max(1, len(self) // 2000)])

    @cached_property
    def ranking_vectors(self) -> np.ndarray:
        """The vectors in the form whose inner product with a query ranks as the store does. `[documents, dim]`."""
        if self.similarity == "cosine" and not self.normalized:
            return self.vectors / np.linalg.norm(self.vectors, axis=1, keepdims=True)
        return self.vectors


@dataclass(frozen=True)
class Sample:
    """
    Which documents of a large index a view holds: chosen by their ids, so that the same index gives the same sample.

    :param share: The share of the documents, between 0 and 1.
    :param always: Ids of documents that are held in any case, such as judged ones.
    """

    share: float = 1.0
    always: frozenset[str] = frozenset()

    def holds(self, document_id: str) -> bool:
        """Whether the document with this id belongs to the sample."""
        if self.share >= 1 or document_id in self.always:
            return True
        return int.from_bytes(hashlib.sha256(document_id.encode()).digest()[:8]) < self.share * 2**64


def read_index(
    pages: Iterable[Page], folder: str | Path, similarity: Similarity, sample: Sample | None = None
) -> IndexView:
    """
    Copy an index, page by page, into a folder that appears only when all of it was read.

    :param pages: The documents; memory holds one page at a time, 16 bytes of every id, and what the sample holds.
    :param similarity: How the store ranks, or a function that finds out.
    :param sample: Which documents to hold; None holds all. All are read, checked and counted in the fingerprint.
    :raises ValueError: If there is no document or no vector, if an id is no text, if an id or a text can't be written
        as UTF-8, if two documents share an id, if two vectors differ in dimension, if a vector is all zeros or holds a
        value that is not finite, or if vectors of different lengths are ranked by euclidean distance.
    """
    told = _checked(similarity) if isinstance(similarity, str) else ""
    with published(folder) as unfinished:
        copy = _Copy(unfinished, sample or Sample())
        with copy:
            for page in pages:
                copy.add(page)
        summary = copy.summary()
        if callable(similarity):
            told = _checked(similarity(_map_vectors(unfinished, len(copy.ids))))
        (unfinished / "index.json").write_text(json.dumps(summary | {"similarity": told}), encoding="utf-8")
    return open_index(folder)


def open_index(folder: str | Path) -> IndexView:
    """
    Open a folder that `read_index` made; vectors are memory-mapped.

    :raises FileNotFoundError: If a part is missing.
    :raises ValueError: If a part is truncated or changed, or the vectors can't be ranked as the store claims to.
    """
    path = Path(folder)
    again = "delete the folder and run again."
    summary = read_json(path / "index.json", Summary, again)
    with (path / "documents.jsonl").open("rb") as lines:
        where = f"{path / 'documents.jsonl'}, line"
        rows = [checked(line, Document, f"{where} {number}", f": {again}") for number, line in enumerate(lines, 1)]
    ids, texts = [row["id"] for row in rows], [row["text"] for row in rows]
    titles = {row["id"]: row["title"] for row in rows if "title" in row}
    vectors = _map_vectors(path, len(ids))
    marks = _sum_of(_mark(document_id, vector) for document_id, vector in zip(ids, vectors, strict=True))
    if len(ids) != summary.pop("documents") or marks != summary.pop("held"):
        raise ValueError(_damaged(path))
    summary |= {"without_vector_ids": tuple(summary["without_vector_ids"]), "titles": titles}
    view = IndexView(ids, texts, vectors, **summary)
    if view.similarity == "euclidean" and not view.normalized:
        msg = (
            "The store ranks by euclidean distance and its vectors are not normalised, so the inner products that all "
            "losses here use would rank otherwise: index normalised vectors, or use cosine or dot product."
        )
        raise ValueError(msg)
    return view


def _checked(similarity: str) -> str:
    if similarity not in SIMILARITIES:
        msg = f"The similarity {similarity!r} is not known: expected one of {', '.join(SIMILARITIES)}."
        raise ValueError(msg)
    return similarity


def _map_vectors(folder: Path, documents: int) -> np.ndarray:
    file = folder / "vectors.f32"
    numbers, rest = divmod(file.stat().st_size, np.dtype(np.float32).itemsize)
    if not documents or not numbers or rest or numbers % documents:
        raise ValueError(_damaged(folder))
    return np.memmap(file, dtype=np.float32, mode="r").reshape(documents, -1)


def _damaged(folder: Path) -> str:
    return f"The copy of the index in {folder} is truncated or was changed: delete the folder and run again."


class _Copy:
    """The files of a view while they are written."""

    def __init__(self, folder: Path, sample: Sample) -> None:
        self.ids: list[str] = []
        self._texts = (folder / "documents.jsonl").open("w", encoding="utf-8")
        self._vectors = (folder / "vectors.f32").open("wb")
        self._sample = sample
        self._known = _Known()
        self._dim: int | None = None
        self._missing_ids: list[str] = []
        self._missing = self._all = self._held = 0

    def __enter__(self) -> "_Copy":
        return self

    def __exit__(self, *_: object) -> None:
        self._texts.close()
        self._vectors.close()

    def add(self, page: Page) -> None:
        for document_id, text, *_ in page:
            _check_text(document_id, text)
        self._known.add([document_id for document_id, *_ in page])
        for document_id, text, vector, *title in page:
            if vector is None:
                self._missing += 1
                self._missing_ids += [document_id] if self._missing <= NAMED else []
                continue
            row = np.asarray(vector, dtype=np.float32)
            self._dim = self._dim or len(row)
            _check_vector(document_id, row, self._dim)
            mark = _mark(document_id, row)
            self._all += mark
            if self._sample.holds(document_id):
                self._held += mark
                self.ids.append(document_id)
                line = {"id": document_id, "text": text or ""} | ({"title": title[0]} if title else {})
                self._texts.write(json.dumps(line, ensure_ascii=False) + "\n")
                self._vectors.write(row.tobytes())

    def summary(self) -> dict[str, object]:
        embedded = self._known.count - self._missing
        if not embedded:
            how = f"all {self._missing} documents lack an embedding" if self._missing else "it holds no documents"
            msg = f"The document store can't be aligned with: {how}. Run the indexing pipeline first."
            raise ValueError(msg)
        if not self.ids:
            msg = f"None of the {embedded} documents falls into a sample of {self._sample.share:.2g}: ask for more."
            raise ValueError(msg)
        if self._missing:
            named = ", ".join(map(repr, self._missing_ids)) + (" and others" if self._missing > NAMED else "")
            text = "%d of %d documents have no vector and are left out: %s."
            logger.warning(text, self._missing, self._known.count, named)
        return {
            "documents": len(self.ids),
            "without_vector": self._missing,
            "without_vector_ids": self._missing_ids,
            "sampled_from": embedded,
            "fingerprint": _sum_of([self._all]),
            "held": _sum_of([self._held]),
        }


class _Known:
    """The ids that were read, in 16 bytes each: a set of the ids themselves would hold ten times as much."""

    def __init__(self) -> None:
        self.count = 0
        self._runs: list[np.ndarray] = []  # sorted, each longer than the next

    def add(self, ids: list[str]) -> None:
        """Take the ids of a page; a ValueError if one was there already."""
        marks = np.array([hashlib.sha256(document_id.encode()).digest()[:16] for document_id in ids], dtype="S16")
        order = np.argsort(marks, kind="stable")
        run = marks[order]
        again = np.append(run[1:] == run[:-1], [False])[: len(run)]
        for earlier in self._runs:
            again |= earlier[np.searchsorted(earlier, run).clip(max=len(earlier) - 1)] == run
        if again.any():
            twice = ids[order[again.argmax()]]
            msg = f"The document store returned the document {twice!r} twice; its ids must be unique."
            raise ValueError(msg)
        self.count += len(run)
        while self._runs and len(self._runs[-1]) <= len(run):
            run = np.sort(np.concatenate([self._runs.pop(), run]), kind="stable")
        if len(run):
            self._runs.append(run)


def _check_text(document_id: object, text: str | None) -> None:
    if not isinstance(document_id, str):
        msg = f"The document store returned a document with the id {document_id!r}: ids must be texts."
        raise ValueError(msg)
    for what, value in (("id", document_id), ("text", text or "")):
        refuse_halves(value, f"The {what} of the document {document_id!r}")


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


def _mark(document_id: str, vector: np.ndarray) -> int:
    """
    Say what a document adds to a fingerprint.

    Sums of SHA-256 don't depend on the order, so pages may come in any order and nothing need be sorted.
    """
    return int.from_bytes(hashlib.sha256(document_id.encode() + b"\0" + vector.tobytes()).digest())


def _sum_of(marks: Iterable[int]) -> str:
    return f"{sum(marks) % 2**256:064x}"


def stored_vectors(file: Path, texts: list[str], encode: Callable[[], np.ndarray]) -> np.ndarray:
    """
    Embed texts once: a file beside the vectors tells whether they belong to these texts.

    :param file: Where the vectors are kept, `.npy`.
    """
    digest = fingerprint("\0".join(texts))
    mark = file.with_suffix(".sha256")
    if not (file.exists() and mark.exists() and mark.read_text() == digest):
        file.parent.mkdir(parents=True, exist_ok=True)
        made = encode()
        mark.unlink(missing_ok=True)
        with written(file) as unfinished, unfinished.open("wb") as content:  # another process may have the file mapped
            np.save(content, made)
        with written(mark) as unfinished:
            unfinished.write_text(digest)
    vectors: np.ndarray = np.load(file, mmap_mode="r")
    return vectors
