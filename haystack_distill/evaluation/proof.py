"""A result folder, the same for every job: models, what was measured of them, and how they came to be."""

import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import save_file
from sentence_transformers import SentenceTransformer

from haystack_distill.data.beir import Qrels
from haystack_distill.data.index import IndexView
from haystack_distill.data.similarity import has_length_one
from haystack_distill.evaluation.card import Card, card_of
from haystack_distill.evaluation.comparison import Measured, beside, metrics, wins_and_losses
from haystack_distill.evaluation.dev_set import DevSet, write_dev_set
from haystack_distill.evaluation.report import write_report
from haystack_distill.files.folders import published, refuse_existing, write_json
from haystack_distill.files.layout import CARD, METRICS, PROVENANCE, REPORT
from haystack_distill.files.processes import process_number, wait_for_all
from haystack_distill.files.runs import fingerprint
from haystack_distill.files.shapes import read_json

UNTOUCHED = "untouched"
"""A retriever as it was before it was trained."""

PROBES = 8
"""Texts with which a saved model is compared with the one that was measured."""


@dataclass(frozen=True)
class Evidence:
    """
    Systems measured on the same queries, the student last; the index has the texts that are judged or found.

    :param title: Of the report; empty takes that of a query encoder.
    :param curve: Weight of the second of two retrievers -> the main measure.
    :param hybrids: `alone` or a way of joining -> name -> the systems and what they are joined with.
    """

    measured: dict[str, Measured]
    index: IndexView
    queries: dict[str, str]
    qrels: Qrels
    seed: int = 0
    reference: str = "teacher"
    title: str = ""
    curve: Sequence[tuple[float, float]] = ()
    hybrids: Mapping[str, Mapping[str, Measured]] = field(default_factory=dict)

    def figures(self) -> dict[str, Any]:
        """What `metrics.json` says of every system, see docs/metrics.md."""
        figures = metrics(self.measured, self.seed, self.reference)
        if self.hybrids:
            figures["hybrids"] = {
                way: beside(systems, self.seed, self.reference) for way, systems in self.hybrids.items()
            }
        return figures

    def page(self, figures: dict[str, Any], facts: dict[str, str], history: Sequence[dict[str, float]]) -> str:
        """The report, as HTML."""
        student, reference = list(self.measured.values())[-1], self.measured[self.reference]
        examples = wins_and_losses(student, reference, self.queries, self.qrels, self.index)
        return write_report(
            self.measured, figures, examples, facts, history, self.reference, self.title, self.curve, self.hybrids
        )


@dataclass(frozen=True)
class Result:
    """
    What a job leaves.

    :param figures: The content of `metrics.json`, with `provenance` where a model was trained.
    :param facts: What was trained on what: label -> text, for people.
    :param models: Folder in the result, an empty name for the result itself -> encoder.
    :param card: None where no model was trained.
    :param dev: What exports will be judged on.
    :param files: Other JSON files: name -> content.
    :param folders: Name -> a folder that is copied.
    :param tensors: Safetensors files: name -> content.
    """

    evidence: Evidence
    figures: dict[str, Any]
    facts: dict[str, str]
    history: Sequence[dict[str, float]] = ()
    models: dict[str, SentenceTransformer] = field(default_factory=dict)
    card: Card | None = None
    dev: DevSet | None = None
    files: dict[str, dict[str, Any]] = field(default_factory=dict)
    folders: dict[str, Path] = field(default_factory=dict)
    tensors: dict[str, dict[str, np.ndarray]] = field(default_factory=dict)


def prove(output: Path, measure: Callable[[], Result]) -> dict[str, Any]:
    """
    Measure what a job made and write it all into a new folder; of several processes the first one does it for all.

    :returns: The content of `metrics.json`.
    :raises ValueError: If a model that is loaded again makes other vectors.
    """
    if not process_number():
        _write(output, measure())
    wait_for_all()
    return read_figures(output)


def read_figures(folder: Path) -> dict[str, Any]:
    """The content of `metrics.json`; empty where there is none."""
    file = folder / METRICS
    return read_json(file, dict[str, Any], "delete its folder and run again.") if file.is_file() else {}


def finished(output: Path, run: dict[str, Any]) -> dict[str, Any] | None:
    """
    The `metrics.json` of a run that was killed after its output appeared; None if the output is still to be made.

    :param run: What the run depends on, see `claim`.
    :raises FileExistsError: If the output is of another run.
    """
    if output.exists():
        figures = read_figures(output)
        if figures.get("provenance", {}).get("made_of") == fingerprint(run):
            return figures
        refuse_existing(output)
    return None


def index_facts(index: IndexView, embedded_again: np.ndarray | None = None) -> dict[str, Any]:
    """
    What a provenance says of the index that an encoder is for; a store is checked against it before it is searched.

    :param embedded_again: Vectors of some documents by the new encoder, where all documents are to be embedded again.
    """
    vectors = index.vectors if embedded_again is None else embedded_again
    return {
        "fingerprint": index.fingerprint,
        "documents": len(index),
        "dim": vectors.shape[1],
        "similarity": index.similarity,
        "normalized": index.normalized if embedded_again is None else has_length_one(embedded_again),
        "without_vector": index.without_vector,
        "sampled_from": index.sampled_from,
        "embedded_again": embedded_again is not None,
    }


def recommendation_fact(figures: dict[str, Any]) -> str:
    """What is to be done with a retriever that was trained."""
    used = figures["recommended"] == "student"
    return "use it" if used else "stay with the untouched one: it is no better on dev"


def left_out_fact(left_out: dict[str, int]) -> str:
    """How many queries were left out because dev or test asks the same."""
    counts = ", ".join(f"{count} of {name.replace('_', ' ')}" for name, count in left_out.items() if count)
    return counts or "none"


def save_model(folder: Path, model: SentenceTransformer, texts: list[str], provenance: dict[str, Any]) -> None:
    """
    Save an encoder with its provenance, and make sure that what is loaded is what was measured.

    Some architectures rebuild layers by their number: a ValueError says so.
    """
    model.save(str(folder), create_model_card=False)
    loaded = SentenceTransformer(str(folder), device=str(model.device), local_files_only=True)
    expected = model.encode(texts, show_progress_bar=False)
    difference = float(abs(loaded.encode(texts, show_progress_bar=False) - expected).max() / abs(expected).max())
    if difference > 1e-3:
        msg = (
            f"The student can't be saved faithfully: loaded again, its vectors differ by {difference:.1%}. If layers "
            "were cut, this architecture can't keep these: choose others with `keep`."
        )
        raise ValueError(msg)
    write_json(folder / PROVENANCE, provenance)


def _write(output: Path, result: Result) -> None:
    figures = {**result.figures, "facts": result.facts} if result.models else result.figures
    texts = list(result.evidence.queries.values())[:PROBES]
    with published(output) as folder:
        for place, model in result.models.items():
            save_model(folder / place, model, texts, figures["provenance"])
        for name, content in result.files.items():
            write_json(folder / name, content)
        for name, source in result.folders.items():
            shutil.copytree(source, folder / name)
        for name, arrays in result.tensors.items():
            save_file(arrays, folder / name)
        write_json(folder / METRICS, figures)
        if result.dev is not None:
            write_dev_set(folder, result.dev)
        page = result.evidence.page(figures, result.facts, result.history)
        (folder / REPORT).write_text(page, encoding="utf-8")
        if result.card is not None:
            measured = list(result.evidence.measured)
            for place in {"", *result.models}:
                side = place or "query" if place in result.models else None
                card = card_of(output / place, result.card, figures, measured, result.facts, side)
                (folder / place / CARD).write_text(card, encoding="utf-8")
