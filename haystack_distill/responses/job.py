"""G2R, the whole job: from contexts and their responses to a retriever that replies (arXiv 2108.12582)."""

import logging
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from sentence_transformers import SentenceTransformer

from haystack_distill.data.dialogues import format_context
from haystack_distill.data.training_set import Row, TrainingSet
from haystack_distill.evaluation.card import Card
from haystack_distill.evaluation.held_out import hold_out, tenth
from haystack_distill.evaluation.proof import UNTOUCHED, Result, finished, prove, recommendation_fact
from haystack_distill.evaluation.quality import compare
from haystack_distill.files.runs import claim, fingerprint, running
from haystack_distill.files.sampling import sample
from haystack_distill.responses.evaluator import METRIC, ResponseEvaluator
from haystack_distill.responses.proof import HIT, evidence_of
from haystack_distill.responses.rows import dialogue_of, human_response, query_text, read_responses, response_set
from haystack_distill.responses.training import NEED_SCORES, G2RSettings, arguments_for, make_rows
from haystack_distill.training.trainer import TrainingSummary, run_trainer

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Material:
    """Rows to train on, and (context, human reply) of other dialogues, as the retriever gets them, to select on."""

    rows: list[Row]
    dev: list[tuple[str, str]]


def distill_responses(
    training_set: str | Path,
    model: str,
    output: str | Path,
    settings: G2RSettings,
    *,
    dev: str | Path | None = None,
    device: str | None = None,
    progress: bool = True,
) -> dict[str, Any]:
    """What `ResponseDistiller` does: one encoder for contexts and responses, with its proof, in a new folder."""
    with running(output) as workspace:
        opened = TrainingSet.open(training_set)
        material = read_material(opened, settings, dev)
        student = SentenceTransformer(model, device=device).float()  # in half precision small steps would be lost
        run = {"settings": settings, "model": model, "rows": fingerprint([material.rows, material.dev])}
        done = finished(Path(output), run)
        if done is not None:
            return done
        checkpoints = workspace / "checkpoints"
        claim(workspace, run, checkpoints.glob("*"))
        contexts, replies = zip(*material.dev, strict=True)
        evaluator = ResponseEvaluator(contexts, replies, seed=settings.seed)
        before = evaluator(student)[METRIC]
        rows, losses = make_rows(material.rows, student, settings)
        arguments = arguments_for(student, checkpoints, settings, progress)
        training = run_trainer(student, rows, losses, evaluator, arguments, metric=METRIC)
        after = evaluator(student)[METRIC]
        if after <= before:
            logger.warning(
                "The trained retriever is not better on dev (hits@1 %.3f, before %.3f): stay with the old one, or try "
                "another recipe; `dialogues` needs no generator.",
                after,
                before,
            )

        def measured() -> Result:
            untouched = SentenceTransformer(model, device=device).float()
            evidence, made_for = evidence_of(untouched, student, material.dev, training.seconds, settings.seed)
            systems = evidence.measured
            figures = {
                **evidence.figures(),
                **_figures(material, training, before, after),
                f"{METRIC}_significance": compare(
                    systems["student"].quality, systems[UNTOUCHED].quality, HIT, settings.seed
                ),
                "provenance": {
                    "model": model,
                    "training_set": {key: opened.manifest[key] for key in ("source", "retriever", "teacher")},
                    "settings": asdict(settings),
                    "index": made_for,
                    "made_of": fingerprint(run),
                },
            }
            history = [{"epoch": 0.0, METRIC: before}, *training.history]
            return Result(evidence, figures, _facts(figures), history, {"": student}, _card(figures))

        return prove(Path(output), measured)


def read_material(training_set: TrainingSet, settings: G2RSettings, dev: str | Path | None = None) -> Material:
    """
    Split a training set into what is trained on and what is selected on.

    No dialogue is in both, unless those given to select on are trained on as well.

    :raises ValueError: If too little is left, or there are no human replies to select on.
    """
    rows = list(training_set.labelled() if settings.recipe in NEED_SCORES else training_set)
    rows = [row for row in rows if row.documents]
    if dev is not None:
        held_out = [
            (format_context(responses.context, settings.history), responses.texts[responses.human.index(True)])
            for responses in read_responses(dev, settings.history)
            if any(responses.human)
        ]
    else:
        dialogues = sorted({dialogue_of(row.query_id) for row in training_set})
        # Drawn from all dialogues, so that every recipe and teacher is selected on the same.
        count = max(1, tenth(len(dialogues), most=len(dialogues)))
        out = set(hold_out(dialogues, count, settings.seed)[0])
        replies = [
            (query_text(row.query, settings.history), human_response(row))
            for row in training_set
            if dialogue_of(row.query_id) in out
        ]
        held_out = [(context, reply) for context, reply in replies if reply is not None]
        rows = [row for row in rows if dialogue_of(row.query_id) not in out]
    held_out = sample(held_out, settings.max_dev, settings.seed)
    if len(rows) < 2 or len({reply for _, reply in held_out}) < 2:
        msg = (
            f"There is too little to train on: {len(rows)} contexts, and {len(held_out)} with a human reply to select "
            "on. Give more dialogues, or some to select on (`dev`)."
        )
        raise ValueError(msg)
    return Material(rows, held_out)


def _figures(material: Material, training: TrainingSummary, before: float, after: float) -> dict[str, Any]:
    return {
        "recommended": "student" if after > before else UNTOUCHED,
        METRIC: after,
        f"{METRIC}_before": before,
        "dev_contexts": len(material.dev),
        "contexts": len(material.rows),
        "responses": len(response_set(material.rows)),
        "training_seconds": training.seconds,
        "history": training.history,
        "judged_by": "dev contexts on which the checkpoint was chosen: the human reply among a hundred candidates",
    }


def _facts(figures: dict[str, Any]) -> dict[str, str]:
    made = figures["provenance"]
    teacher = made["training_set"]["teacher"] or {}
    return {
        "Recommendation": recommendation_fact(figures),
        "Dev hits@1": f"{figures[f'{METRIC}_before']:.4f} before, {figures[METRIC]:.4f} after",
        "Trained": made["model"],
        "Recipe": made["settings"]["recipe"],
        "Teacher": ", ".join(f"{name}: {value}" for name, value in teacher.items()) or "none",
        "Trained on": f"{figures['contexts']} contexts with {figures['responses']} responses",
        "Training": f"{figures['training_seconds']:.0f} s, seed {made['settings']['seed']}",
        "Judged by": figures["judged_by"],
    }


def _card(figures: dict[str, Any]) -> Card:
    settings = figures["provenance"]["settings"]
    turns = settings["history"]
    before, after = (f"{100 * figures[key]:.1f} %" for key in (f"{METRIC}_before", METRIC))
    said = (
        f"It puts the human reply first of a hundred candidates for {after} of {figures['dev_contexts']} dev contexts.",
        f"Before training it did so for {before}.",
        "It embeds contexts and responses alike, and ranks by cosine.",
        f"A context is the last {turns} turns, as `haystack_distill.data.dialogues.format_context` writes them.",
    )
    return Card("A retriever of replies", "response-retrieval", said, figures["provenance"]["model"])
