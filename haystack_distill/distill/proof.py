# SPDX-FileCopyrightText: 2026-present haystack-distill contributors
#
# SPDX-License-Identifier: Apache-2.0

"""A distilled retriever with its proof: measured beside the untouched one, and written with card and report."""

import json
import shutil
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
from sentence_transformers import SentenceTransformer

from haystack_distill.data.beir import Qrels
from haystack_distill.data.index import IndexView, stored_vectors
from haystack_distill.data.training_set import TrainingSet
from haystack_distill.distill.job import Dev, DistillationSettings, Distilled, distill
from haystack_distill.evaluation.comparison import Measured, measure_move, metrics, student_system, wins_and_losses
from haystack_distill.evaluation.held_out import judged_split
from haystack_distill.evaluation.proof import check_saved
from haystack_distill.evaluation.report import write_report
from haystack_distill.files.folders import published, workspace_for, write_json
from haystack_distill.files.layout import PROVENANCE
from haystack_distill.files.processes import process_number, wait_for_all
from haystack_distill.students.bi_encoder import BiEncoder
from haystack_distill.students.cutting import cut, find_stack
from haystack_distill.students.token_table import is_table

UNTOUCHED = "untouched"


def open_student(encoder: BiEncoder, name: str) -> SentenceTransformer:
    """
    A copy of an encoder to train, with the settings of its index baked in.

    :param encoder: The encoder, loaded with those settings.
    :param name: Its folder or hub name: students that this package made have their settings in them already.
    :returns: The copy.
    """
    if (Path(name) / PROVENANCE).is_file() or is_table(encoder.model):
        return SentenceTransformer(name, device=str(encoder.model.device)).float()
    student = cut(encoder, tuple(range(len(find_stack(encoder.model)))))
    if encoder.document_prefix:
        student.prompts["document"] = encoder.document_prefix
    return student


def distill_and_prove(
    encoder: BiEncoder,
    name: str,
    training_set: TrainingSet,
    index: IndexView,
    settings: DistillationSettings,
    output: Path,
    judged: str | None = None,
    *,
    progress: bool = True,
) -> dict[str, Any]:
    """
    Train a retriever on its teacher's scores, measure it beside what it was, and write it all into a new folder.

    :param encoder: The encoder to train, with the settings of the index.
    :param name: Its folder or hub name.
    :param training_set: A labelled training set.
    :param index: The index.
    :param settings: What is wanted.
    :param output: The folder to make.
    :param judged: A BEIR folder whose dev split is selected on and whose test split the proof is about, as far as it
        has them; without, both are held-out queries of the training set, judged by the teacher's favourite.
    :param progress: Whether to show progress bars.
    :returns: The content of `metrics.json`, see docs/metrics.md.
    :raises FileNotFoundError: If a path is missing.
    :raises ValueError: See `distill`.
    """
    workspace = workspace_for(output)
    dev, test = splits_of(judged, index)
    untouched, student = open_student(encoder, name), open_student(encoder, name)
    asked = test[0].values() if test else ()
    distilled = distill(student, training_set, index, settings, workspace, dev, asked, progress=progress)
    if process_number():  # the first process measures and writes for all
        wait_for_all()
        return json.loads((output / "metrics.json").read_text(encoding="utf-8"))
    queries, qrels = test or (distilled.dev.queries, distilled.dev.qrels)
    own = _moved(student, index, workspace, progress) if settings.update == "both" else index
    system = student_system("student", student, distilled.training.seconds)
    measured = measure_move(student_system(UNTOUCHED, untouched), system, index, own, queries, qrels)
    figures = {
        **metrics(measured, settings.training.seed, UNTOUCHED),
        "recommended": "student" if distilled.better else UNTOUCHED,
        "dev": {"before": distilled.before, "after": distilled.after, "judged": distilled.dev.judged},
        "training_seconds": distilled.training.seconds,
        "judged_by": "judged test queries" if test else judge_of(distilled.dev),
        "embed_again": "all documents" if settings.update == "both" else "nothing",
        "provenance": _provenance(name, training_set, index, settings, distilled),
    }
    examples = wins_and_losses(measured["student"], measured[UNTOUCHED], queries, qrels, index)
    with published(output) as folder:
        _write(folder, distilled, figures, measured, examples)
    wait_for_all()
    shutil.rmtree(workspace, ignore_errors=True)
    return figures


def splits_of(judged: str | None, index: IndexView) -> tuple[Dev | None, tuple[dict[str, str], Qrels] | None]:
    """
    The judged queries to select on and to prove on.

    :param judged: A BEIR folder, or None.
    :param index: The index.
    :returns: Its dev and its test split, each as far as it is there.
    :raises FileNotFoundError: If there is neither.
    """
    if judged is None:
        return None, None
    there = {split for split in ("dev", "test") if (Path(judged) / "qrels" / f"{split}.tsv").is_file()}
    if not there:
        msg = f"{judged} has neither qrels/dev.tsv nor qrels/test.tsv: leave it out to be judged by the teacher."
        raise FileNotFoundError(msg)
    found = {split: judged_split(judged, split, index) for split in there}
    dev = Dev(*found["dev"], judged=True) if "dev" in found else None
    return dev, found.get("test")


def judge_of(dev: Dev) -> str:
    """
    Who judged.

    :param dev: The queries selected on.
    :returns: For `judged_by`.
    """
    return "judged dev queries" if dev.judged else "held-out queries, judged by the teacher's favourite"


def _moved(student: SentenceTransformer, index: IndexView, workspace: Path, progress: bool) -> IndexView:
    """The index as it will be once its documents are embedded again."""

    def embed() -> np.ndarray:
        vectors = student.encode_document(index.texts, batch_size=32, show_progress_bar=progress)
        return np.asarray(vectors, dtype=np.float32)

    # Kept for the case of a kill, for this student only.
    first = student.encode_document(index.texts[:1], show_progress_bar=False)
    key = [index.fingerprint, str(np.round(first[0, :8], 3).tolist())]
    return replace(index, vectors=stored_vectors(workspace / "document_vectors.npy", key, embed))


def _provenance(
    name: str, training_set: TrainingSet, index: IndexView, settings: DistillationSettings, distilled: Distilled
) -> dict[str, Any]:
    manifest = training_set.manifest
    return {
        "trained": name,
        "index": {
            "fingerprint": index.fingerprint,
            "documents": len(index),
            "dim": index.dim,
            "similarity": index.similarity,
            "normalized": index.normalized,
        },
        "teacher": manifest["teacher"],
        "training_set": {name: manifest[name] for name in ("source", "retriever", "rows")},
        "queries": distilled.queries,
        "skipped": distilled.skipped,
        "teacher_temperature": distilled.teacher_temperature,
        "settings": json.loads(json.dumps({**asdict(settings), "loss": dict(settings.loss)})),
        "history": distilled.training.history,
        "diverged": distilled.training.diverged,
    }


def _write(
    folder: Path,
    distilled: Distilled,
    figures: dict[str, Any],
    measured: dict[str, Measured],
    examples: dict[str, list[dict[str, Any]]],
) -> None:
    distilled.student.save(str(folder), create_model_card=False)
    check_saved(folder, distilled.student, list(distilled.dev.queries.values())[:8])
    write_json(folder / PROVENANCE, figures["provenance"])
    write_json(folder / "metrics.json", figures)
    facts = facts_of(figures)
    history = [{"epoch": 0.0, "dev_ndcg@10": distilled.before}, *distilled.training.history]
    page = write_report(measured, figures, examples, facts, history, UNTOUCHED)
    (folder / "report.html").write_text(page, encoding="utf-8")
    (folder / "README.md").write_text(_card(figures, facts), encoding="utf-8")


def facts_of(figures: dict[str, Any]) -> dict[str, str]:
    """
    What a report and a card say of how a retriever was distilled.

    :param figures: The content of `metrics.json`.
    :returns: Label -> text.
    """
    made = figures["provenance"]
    settings, teacher = made["settings"], made["teacher"] or {}
    losses = " + ".join(f"{weight:g} x {name}" for name, weight in settings["loss"].items())
    left_out = "; ".join(f"{reason}: {count}" for reason, count in made["skipped"].items()) or "none"
    dev = figures["dev"]
    return {
        "Recommendation": "use it"
        if figures["recommended"] == "student"
        else "stay with the untouched one: it is no better on dev",
        "Dev nDCG@10": f"{dev['before']:.4f} before, {dev['after']:.4f} after",
        "Trained": made["trained"],
        "Teacher": ", ".join(f"{name}: {value}" for name, value in teacher.items()),
        "Queries": f"{made['queries']} of {made['training_set']['rows']} (left out: {left_out})",
        "Moved": "queries only" if settings["update"] == "query" else "queries and documents",
        "To be embedded again": figures["embed_again"],
        "Loss": f"{losses}, teacher temperature {made['teacher_temperature']:.3g}",
        "Training": f"{figures['training_seconds']:.0f} s, seed {figures['seed']}",
        "Judged by": figures["judged_by"],
    }


def _card(figures: dict[str, Any], facts: dict[str, str]) -> str:
    difference = figures["significance"]
    result = (
        f"nDCG@10 {figures['student']['ndcg@10']:.3f}, {figures[UNTOUCHED]['ndcg@10']:.3f} before training "
        f"(difference {difference['difference']:+.3f}, 95 % {difference['low']:+.3f} to {difference['high']:+.3f})."
    )
    lines = [
        "---",
        "library_name: sentence-transformers",
        "pipeline_tag: sentence-similarity",
        "tags: [sentence-transformers, haystack-distill, retriever]",
        "---",
        "",
        "# A distilled retriever",
        "",
        result,
        "",
        *(f"- {label}: {text}" for label, text in facts.items()),
    ]
    return "\n".join(lines) + "\n"
