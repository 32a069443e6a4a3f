"""
A student that learns what came into its index after it was made, in seconds, and keeps what it knew.

The folder of a student holds a mark of each document that it was aligned with, so that new ones are told from old ones,
which its teacher need not read again. A token table is solved for anew as recursive least squares do it (R. L.
Plackett, Some theorems in least squares, Biometrika 37, 1950): what it makes of the sentences that it knows is their
target. If it was the solution for these, the result is the solution for old and new sentences together. A student with
layers is trained on the new sentences and as many of the old ones.
"""

import copy
import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import compress
from pathlib import Path
from typing import Any

import numpy as np
from sentence_transformers import SentenceTransformer

from haystack_distill.data.index import IndexView
from haystack_distill.data.similarity import cosines
from haystack_distill.evaluation.dev_set import DevSet, read_dev_set
from haystack_distill.evaluation.held_out import LEAST, IndexText, hold_out, split_index_text, split_sentences
from haystack_distill.evaluation.measures import MAIN
from haystack_distill.evaluation.proof import Evidence, read_figures
from haystack_distill.files.layout import LEARNT
from haystack_distill.files.shapes import read_tensors
from haystack_distill.students.bi_encoder import MATCH
from haystack_distill.students.token_table import is_table

BEFORE = "before"
"""What the student is called in a proof as it was."""

ABOUT = {"about_new": "Queries about new documents", "about_others": "Queries about the others"}
"""Of which queries a proof tells apart what an update brought: key in `metrics.json` -> label."""

PARTS = ("documents", "held_out")
"""What marks a student's folder holds, see `Earlier`."""

MOST_GONE = 0.5
"""Where a larger part of the documents that a student was aligned with is gone or changed, it is another index."""


@dataclass(frozen=True)
class Earlier:
    """
    A student that is to be updated, and what it was aligned with.

    :param name: Its folder or hub name.
    :param documents: The marks of the documents that it was aligned with.
    :param held_out: The marks of the sentences that it was, or would have been, proven on.
    :param dev: What it was selected on.
    :param made_of: What its run depended on.
    :param kept_layers: The numbers of the teacher's layers that it has.
    """

    name: str
    student: SentenceTransformer
    documents: np.ndarray
    held_out: np.ndarray
    dev: DevSet
    made_of: str
    kept_layers: tuple[int, ...]

    @classmethod
    def load(cls, name: str, folder: Path) -> "Earlier":
        """
        Read a student's folder.

        :raises FileNotFoundError: If it is none, or does not tell what it was aligned with.
        :raises ValueError: If a part is damaged, or it is another encoder with a map.
        """
        figures, again = read_figures(folder), "align anew, without `update`."
        made = figures.get("provenance", {})
        if not (folder / LEARNT).is_file() or "made_of" not in made:
            msg = f"{name} does not tell which documents it was aligned with ({LEARNT} is missing): {again}"
            raise FileNotFoundError(msg)
        if made.get("student"):
            msg = f"{name} is {made['student']} with a map into the index, which is fitted anew in seconds: {again}"
            raise ValueError(msg)
        marks = read_tensors(folder / LEARNT, again)
        if {part: (mark.dtype, mark.ndim) for part, mark in marks.items()} != dict.fromkeys(PARTS, (np.uint64, 1)):
            msg = f"{folder / LEARNT} is damaged (it has not the marks {' and '.join(PARTS)} alone): {again}"
            raise ValueError(msg)
        student = SentenceTransformer(str(folder), device="cpu", local_files_only=True)
        kept = tuple(made.get("kept_layers", ()))
        return cls(name, student, **marks, dev=read_dev_set(folder), made_of=made["made_of"], kept_layers=kept)

    @property
    def is_table(self) -> bool:
        """Whether it is a token table, which is solved for."""
        return is_table(self.student)

    def copied(self, device: str) -> SentenceTransformer:
        """The student again, to be changed."""
        return copy.deepcopy(self.student).to(device)

    def new_in(self, index: IndexView) -> np.ndarray:
        """
        Find the documents that came, or were changed, since: `[documents]`, true for a new one.

        :raises ValueError: If there is none, if most of the old ones are gone, or if another encoder made the vectors.
        """
        marks = document_marks(index)
        new, gone = ~np.isin(marks, self.documents), np.sum(~np.isin(self.documents, marks))
        # Of a large index a sample is held, which changes when the index grows: what is not in it need not be gone.
        if new.all() or (index.sampled_from <= len(index) and gone > MOST_GONE * len(self.documents)):
            msg = (
                f"{gone} of the {len(self.documents)} documents that {self.name} was aligned with are not in this "
                "index, or have another text there: it is another index, so align anew, without `update`."
            )
            raise ValueError(msg)
        if not new.any():
            msg = f"{self.name} was aligned with all {len(index)} documents of this index: there is nothing to update."
            raise ValueError(msg)
        self._check_vectors(index)
        return new

    def _check_vectors(self, index: IndexView) -> None:
        rows = {document: row for row, document in enumerate(index.ids)}
        pairs = [(rows[document], row) for row, document in enumerate(self.dev.index.ids) if document in rows]
        stored, before = (list(one) for one in zip(*pairs, strict=True)) if pairs else ([], [])
        if pairs and np.median(cosines(index.vectors[stored], self.dev.index.vectors[before])) < MATCH:
            msg = (
                f"The documents that {self.name} was aligned with have other vectors now: another encoder made them, "
                "so align anew, without `update`."
            )
            raise ValueError(msg)

    def text_of(self, index: IndexView, seed: int) -> tuple[IndexText, list[str]]:
        """
        The sentences of the new documents, with what was held out before, and the sentences that it knows.

        :raises ValueError: See `new_in`.
        """
        new, places = self.new_in(index), split_index_text(index, seed).places
        dev = set(self.dev.texts)
        others = [text for text in places if text not in dev]
        fresh = [text for text in others if new[places[text]].all()]
        known = [text for text in others if not new[places[text]].all()]
        proven = np.isin(text_marks(known), self.held_out)
        parts = split_sentences({text: places[text] for text in fresh}, seed)
        # As many of the old ones, or what is best for the few new ones would not count beside them.
        selecting = hold_out(self.dev.texts, min(len(self.dev.texts), max(len(parts.dev), LEAST)), seed)[0]
        proof = [text for text, held_out in zip(known, proven, strict=True) if held_out]
        known = [text for text, held_out in zip(known, proven, strict=True) if not held_out]
        held_out = (_numbered([*selecting, *parts.dev.values()]), _numbered([*proof, *parts.proof.values()]))
        return IndexText(*held_out, parts.rest, places), known

    def figures(self, index: IndexView, evidence: Evidence) -> dict[str, Any]:
        """What is new, and the main measure of each system for queries about new documents alone, and for others."""
        new = set(compress(index.ids, self.new_in(index)))
        student = list(evidence.measured.values())[-1]
        about_new = np.array([new.issuperset(evidence.qrels[query_id]) for query_id in student.quality.query_ids])
        figures: dict[str, Any] = {"of": self.name, "documents": len(self.documents), "new_documents": len(new)}
        for name, rows in zip(ABOUT, (about_new, ~about_new), strict=True):
            figures[name] = {"queries": int(rows.sum())}
            if rows.any():
                values = {system: one.quality.per_query[MAIN.key][rows] for system, one in evidence.measured.items()}
                figures[name] |= {system: float(value.mean()) for system, value in values.items()}
        return figures


def update_facts(update: dict[str, Any]) -> dict[str, str]:
    """What a report, a card and the command line say of an update, label -> text."""
    told = {"Update of": f"{update['of']}, for {update['new_documents']} new documents"}
    for name, label in ABOUT.items():
        figures = update[name]
        if figures["queries"]:
            before, now = figures[BEFORE], figures["student"]
            told[label] = f"{figures['queries']}, {MAIN.heading} {before:.3f} before and {now:.3f} now"
    return told


def index_text_of(index: IndexView, seed: int, earlier: Earlier | None) -> tuple[IndexText, list[str]]:
    """The sentences of an index, some held out; and those that are not learnt because a student knows them."""
    return earlier.text_of(index, seed) if earlier else (split_index_text(index, seed), [])


def learnt(index: IndexView, held_out: Iterable[str]) -> dict[str, np.ndarray]:
    """What the folder of a student says of the index that it was aligned with; see `Earlier`."""
    return dict(zip(PARTS, (document_marks(index), text_marks(held_out)), strict=True))


def document_marks(index: IndexView) -> np.ndarray:
    """A number for each document, which changes when its text does: `[documents]`, uint64."""
    return text_marks(f"{document}\0{text}" for document, text in zip(index.ids, index.texts, strict=True))


def text_marks(texts: Iterable[str]) -> np.ndarray:
    """A number for each text: `[texts]`, uint64."""
    return np.array([int.from_bytes(hashlib.sha256(text.encode()).digest()[:8]) for text in texts], dtype=np.uint64)


def _numbered(sentences: list[str]) -> dict[str, str]:
    return {f"sentence-{number}": sentence for number, sentence in enumerate(sentences)}
