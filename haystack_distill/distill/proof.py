"""DKRR, the whole job: a retriever is distilled, measured beside what it was, and written into a folder of its own."""

from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from sentence_transformers import SentenceTransformer

from haystack_distill.data.index import IndexView, stored_vectors
from haystack_distill.data.training_set import TrainingSet
from haystack_distill.distill.job import DistillationSettings, Distilled, material_of, train_on
from haystack_distill.evaluation.card import Card
from haystack_distill.evaluation.comparison import measure_move, student_system
from haystack_distill.evaluation.held_out import splits_of
from haystack_distill.evaluation.measures import headline
from haystack_distill.evaluation.proof import (
    UNTOUCHED,
    Evidence,
    Result,
    finished,
    index_facts,
    left_out_fact,
    prove,
    recommendation_fact,
)
from haystack_distill.files.layout import PROVENANCE
from haystack_distill.files.progress import with_bar
from haystack_distill.files.runs import fingerprint
from haystack_distill.students.bi_encoder import BiEncoder
from haystack_distill.students.cutting import cut, find_stack
from haystack_distill.students.token_table import is_table


def distill_and_prove(
    encoder: BiEncoder,
    name: str,
    training_set: TrainingSet,
    index: IndexView,
    settings: DistillationSettings,
    output: Path,
    workspace: Path,
    judged: str | None = None,
    *,
    progress: bool = True,
) -> dict[str, Any]:
    """
    Train a retriever on its teacher's scores, measure it beside what it was, and write it all into a new folder.

    :param encoder: The encoder to train, with the settings of the index.
    :param workspace: See `running`.
    :param judged: A BEIR folder whose dev split is selected on and whose test split the proof is about, as far as it
        has them; without, both are held-out queries of the training set, judged by the teacher's favourite.
    :returns: The content of `metrics.json`, see docs/metrics.md.
    :raises ValueError: See `distill`.
    """
    dev, test = splits_of(judged, index)
    untouched, student = open_student(encoder, name), open_student(encoder, name)
    material = material_of(student, training_set, index, settings, dev, test[0].values() if test else ())
    done = finished(output, material.run)
    if done is not None:
        return done
    distilled = train_on(student, index, settings, workspace, material, progress)

    def measured() -> Result:
        moving = settings.update == "both"
        searched = _moved(student, index, workspace, progress) if moving else index
        queries, qrels = test or (distilled.dev.queries, distilled.dev.qrels)
        before = student_system(UNTOUCHED, untouched)
        after = student_system("student", student, distilled.training.seconds)
        systems = measure_move(before, after, index, searched, queries, qrels)
        evidence = Evidence(systems, index, queries, qrels, settings.training.seed, UNTOUCHED)
        figures = {
            **evidence.figures(),
            "recommended": distilled.recommended,
            "dev": {"before": distilled.before, "after": distilled.after, "judged": distilled.dev.judged},
            "training_seconds": distilled.training.seconds,
            "judged_by": "judged test queries" if test else distilled.dev.judge,
            "left_out": distilled.left_out,
            "embed_again": "all documents" if moving else "nothing",
            "provenance": {
                **_provenance(name, training_set, settings, distilled),
                "index": index_facts(index, embedded_again=searched.vectors if moving else None),
                "made_of": fingerprint(material.run),
            },
        }
        history = [{"epoch": 0.0, "dev_ndcg@10": distilled.before}, *distilled.training.history]
        learnt_from = training_set.manifest["source"]
        card = Card("A distilled retriever", "retriever", [headline(figures, UNTOUCHED)], name, learnt_from)
        return Result(evidence, figures, _facts(figures), history, {"": student}, card)

    return prove(output, measured)


def open_student(encoder: BiEncoder, name: str) -> SentenceTransformer:
    """
    A copy of an encoder to train, with the settings of its index baked in.

    :param name: Its folder or hub name: students that this package made have their settings in them already.
    """
    if (Path(name) / PROVENANCE).is_file() or is_table(encoder.model):
        return SentenceTransformer(name, device=str(encoder.model.device)).float()
    student = cut(encoder, tuple(range(len(find_stack(encoder.model)))))
    if encoder.document_prefix:
        student.prompts["document"] = encoder.document_prefix
    return student


def _moved(student: SentenceTransformer, index: IndexView, workspace: Path, progress: bool) -> IndexView:
    """The index as it will be once its documents are embedded again."""

    def embed() -> np.ndarray:
        encode = partial(student.encode_document, batch_size=32, show_progress_bar=False)
        return with_bar(lambda: encode, index.texts, "Embedding documents again", 32, shown=progress)

    # Kept for the case of a kill, for this student only.
    first = student.encode_document(index.texts[:1], show_progress_bar=False)
    key = [index.fingerprint, str(np.round(first[0, :8], 3).tolist())]
    return replace(index, vectors=stored_vectors(workspace / "document_vectors.npy", key, embed))


def _provenance(
    name: str, training_set: TrainingSet, settings: DistillationSettings, distilled: Distilled
) -> dict[str, Any]:
    manifest = training_set.manifest
    return {
        "trained": name,
        "teacher": manifest["teacher"],
        "training_set": {key: manifest[key] for key in ("source", "retriever", "rows")},
        "queries": distilled.queries,
        "skipped": distilled.skipped,
        "teacher_temperature": distilled.teacher_temperature,
        "settings": asdict(settings),
        "history": distilled.training.history,
        "diverged": distilled.training.diverged,
    }


def _facts(figures: dict[str, Any]) -> dict[str, str]:
    """What a report and a card say of how a retriever was distilled."""
    made = figures["provenance"]
    settings, teacher = made["settings"], made["teacher"] or {}
    losses = " + ".join(f"{weight:g} x {name}" for name, weight in settings["loss"].items())
    skipped = "; ".join(f"{reason}: {count}" for reason, count in made["skipped"].items()) or "none"
    dev = figures["dev"]
    return {
        "Recommendation": recommendation_fact(figures),
        "Dev nDCG@10": f"{dev['before']:.4f} before, {dev['after']:.4f} after",
        "Trained": made["trained"],
        "Teacher": ", ".join(f"{name}: {value}" for name, value in teacher.items()),
        "Queries": f"{made['queries']} of {made['training_set']['rows']} (left out: {skipped})",
        "Left out, since dev or test asks it": left_out_fact(figures["left_out"]),
        "Moved": "queries only" if settings["update"] == "query" else "queries and documents",
        "To be embedded again": figures["embed_again"],
        "Loss": f"{losses}, teacher temperature {made['teacher_temperature']:.3g}",
        "Training": f"{figures['training_seconds']:.0f} s, seed {figures['seed']}",
        "Judged by": figures["judged_by"],
    }
