# SPDX-FileCopyrightText: 2026-present haystack-distill contributors
#
# SPDX-License-Identifier: Apache-2.0

"""G2R, the whole job: from contexts and their responses to a retriever that replies (arXiv 2108.12582)."""

import hashlib
import logging
import shutil
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from sentence_transformers import SentenceTransformer

from haystack_distill.data.dialogues import format_context
from haystack_distill.data.similarity import has_length_one
from haystack_distill.data.training_set import Row, TrainingSet
from haystack_distill.files.folders import claim, published, workspace_for, write_json
from haystack_distill.files.layout import PROVENANCE
from haystack_distill.files.sampling import sample
from haystack_distill.responses.evaluator import METRIC, ResponseEvaluator
from haystack_distill.responses.rows import dialogue_of, human_reply, query_text, read_responses, response_set
from haystack_distill.responses.training import NEED_SCORES, G2RSettings, arguments_for, make_rows
from haystack_distill.training.trainer import TrainingSummary, run_trainer

logger = logging.getLogger(__name__)

DEV_PART = 10
"""Where no dev dialogues are given, one in so many dialogues is held out."""


@dataclass(frozen=True)
class Material:
    """
    What a retriever is trained and selected on.

    :param rows: Contexts with their responses.
    :param dev: (context, human reply) of dialogues that are not trained on, as they are given to the retriever.
    """

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
    """
    Train one encoder for contexts and responses, and write it with its figures into a new folder.

    A killed run goes on from its last checkpoint when it is started again with the same settings.

    :param training_set: A training set of responses, labelled by a teacher where the recipe needs that.
    :param model: The encoder to start from: folder or hub name.
    :param output: The folder to make.
    :param settings: How to train.
    :param dev: Dialogues (`.jsonl`) to select on; None holds some of the training set's dialogues out.
    :param device: Where training runs; None is the fastest at hand.
    :param progress: Whether to show progress bars.
    :returns: The content of `metrics.json`.
    :raises FileNotFoundError: If a path is missing.
    :raises FileExistsError: If the output exists.
    :raises ValueError: If there is too little to train or select on, scores are missing, or an unfinished run in the
        same place had other settings.
    """
    workspace = workspace_for(output)
    opened = TrainingSet.open(training_set)
    material = read_material(opened, settings, dev)
    student = SentenceTransformer(model, device=device).float()  # in half precision small steps would be lost
    contents = hashlib.sha256(repr((material.rows, material.dev)).encode()).hexdigest()
    checkpoints = workspace / "checkpoints"
    claim(workspace, {"settings": asdict(settings), "model": model, "rows": contents}, checkpoints.glob("*"))
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
    figures = _figures(opened, material, model, settings, training, before, after)
    with published(output) as folder:
        student.save(str(folder), create_model_card=False)
        _write(folder, student, figures)
    shutil.rmtree(workspace, ignore_errors=True)
    return figures


def read_material(training_set: TrainingSet, settings: G2RSettings, dev: str | Path | None = None) -> Material:
    """
    Split a training set into what is trained on and what is selected on.

    No dialogue is in both, unless those given to select on are trained on as well.

    :param training_set: The training set.
    :param settings: The recipe says which rows serve: those with scores, or all.
    :param dev: Dialogues to select on; None holds some out.
    :returns: The material.
    :raises ValueError: If too little is left, or there are no human replies to select on.
    """
    rows = list(training_set.labelled() if settings.recipe in NEED_SCORES else training_set)
    rows = [row for row in rows if row.documents]
    if dev is not None:
        given = read_responses(dev, settings.history)
        held_out = [
            (format_context(one.context, settings.history), one.texts[one.human.index(True)])
            for one in given
            if any(one.human)
        ]
    else:
        dialogues = sorted({dialogue_of(row.query_id) for row in training_set})
        # Drawn from all dialogues, so that every recipe and teacher is selected on the same.
        out = set(sample(dialogues, max(1, len(dialogues) // DEV_PART), settings.seed))
        replies = [
            (query_text(row.query, settings.history), human_reply(row))
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


def _figures(
    training_set: TrainingSet,
    material: Material,
    model: str,
    settings: G2RSettings,
    training: TrainingSummary,
    before: float,
    after: float,
) -> dict[str, Any]:
    return {
        "dev_hits@1": after,
        "dev_hits@1_before": before,
        "dev_contexts": len(material.dev),
        "contexts": len(material.rows),
        "responses": len(response_set(material.rows)),
        "training_seconds": training.seconds,
        "history": training.history,
        "provenance": {
            "model": model,
            "training_set": {key: training_set.manifest[key] for key in ("source", "retriever", "teacher")},
            "settings": asdict(settings),
        },
    }


def _write(folder: Path, student: SentenceTransformer, figures: dict[str, Any]) -> None:
    vectors = student.encode(["Does it make vectors of length 1?", "Does it?"])
    made_for = {"dim": vectors.shape[1], "similarity": "cosine", "normalized": has_length_one(vectors)}
    write_json(folder / PROVENANCE, {**figures["provenance"], "index": made_for})
    write_json(folder / "metrics.json", figures)
    settings = figures["provenance"]["settings"]
    card = (
        "---\nlibrary_name: sentence-transformers\npipeline_tag: sentence-similarity\n"
        "tags: [sentence-transformers, haystack-distill, response-retrieval]\n---\n\n"
        "# A retriever of replies\n\n"
        f"Trained by the recipe `{settings['recipe']}` from {figures['provenance']['model']} on {figures['contexts']} "
        f"contexts with {figures['responses']} responses. It puts the human reply first among a hundred candidates for "
        f"{100 * figures['dev_hits@1']:.1f} % of {figures['dev_contexts']} dev contexts; before training, for "
        f"{100 * figures['dev_hits@1_before']:.1f} %.\n\n"
        "It embeds contexts and responses alike, and ranks by cosine. A context is the dialogue so far as "
        f"`haystack_distill.data.dialogues.format_context` writes it, {settings['history']} turns at most.\n"
    )
    (folder / "README.md").write_text(card, encoding="utf-8")
