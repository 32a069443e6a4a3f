"""DKRR: from a labelled training set and the retriever that made it to a better one."""

import logging
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from sentence_transformers import SentenceTransformer

from haystack_distill.data.index import IndexView
from haystack_distill.data.training_set import TrainingSet
from haystack_distill.distill.targets import Targets, check_same_vectors, held_out, targets_of
from haystack_distill.distill.training import RetrieverTraining, train_retriever
from haystack_distill.evaluation.evaluators import IndexRetrievalEvaluator, ReembeddingEvaluator
from haystack_distill.evaluation.held_out import Asked, Dev
from haystack_distill.evaluation.proof import UNTOUCHED
from haystack_distill.files.runs import claim, fingerprint
from haystack_distill.losses.retriever import RetrieverLoss
from haystack_distill.losses.table import RETRIEVER, mines_negatives
from haystack_distill.losses.temperature import entropy_temperature
from haystack_distill.losses.weights import checked_weights
from haystack_distill.training.adapters import check_lora
from haystack_distill.training.hard_negatives import hard_negatives
from haystack_distill.training.trainer import METRIC, TrainingSummary

logger = logging.getLogger(__name__)

UPDATES = ("query", "both")
NEGATIVES = 7
"""Mined passages of each query that the contrastive loss compares with."""


@dataclass(frozen=True)
class DistillationSettings:
    """What is to be learnt and how: the settings that `RetrieverDistiller` explains."""

    update: str = "query"
    loss: Mapping[str, float] = field(default_factory=lambda: {"listwise": 1.0})
    teacher_temperature: float | str = "entropy"
    target_entropy: float = 0.3
    student_temperature: float = 0.05
    passages: int | None = None
    training: RetrieverTraining = field(default_factory=RetrieverTraining)

    def __post_init__(self) -> None:
        if self.update not in UPDATES:
            msg = f"update={self.update!r} is not known: use 'query' or 'both'."
            raise ValueError(msg)
        object.__setattr__(self, "loss", checked_weights(self.loss, RETRIEVER))  # from YAML they may be strings
        check_lora(self.training.lora_rank)
        fixed = self.teacher_temperature != "entropy"
        if fixed and not 0 < float(self.teacher_temperature) < float("inf"):
            msg = f"teacher_temperature must be a positive number or 'entropy', not {self.teacher_temperature!r}."
            raise ValueError(msg)
        if not (0 < self.target_entropy < 1 and self.student_temperature > 0):
            msg = (
                f"target_entropy={self.target_entropy} must be between 0 and 1, and "
                f"student_temperature={self.student_temperature} above 0."
            )
            raise ValueError(msg)
        if self.passages is not None and self.passages < 2:
            msg = f"passages={self.passages} leaves nothing to compare: give at least 2, or None for all."
            raise ValueError(msg)


@dataclass(frozen=True)
class Material:
    """
    What a student learns and what it is selected on.

    :param negatives: Rows of the index, `[queries, negatives]`, where the loss needs them.
    :param vectors: What the student makes of the queries before it is trained, `[queries, dim]`.
    :param left_out: How many queries of `train` and of `dev` are left out because dev or test asks the same.
    """

    targets: Targets
    negatives: np.ndarray | None
    vectors: np.ndarray
    dev: Dev
    left_out: dict[str, int]
    run: dict[str, Any]


@dataclass(frozen=True)
class Distilled:
    """A trained student and how it came to be; for `left_out` see `Material`, for `skipped` `Targets`."""

    student: SentenceTransformer
    before: float
    after: float
    training: TrainingSummary
    queries: int
    skipped: dict[str, int]
    left_out: dict[str, int]
    teacher_temperature: float
    dev: Dev

    @property
    def recommended(self) -> str:
        """The student, or, if it is no better on dev, the retriever as it was."""
        return "student" if self.after > self.before else UNTOUCHED


def distill(
    student: SentenceTransformer,
    training_set: TrainingSet,
    index: IndexView,
    settings: DistillationSettings,
    workspace: Path,
    dev: Dev | None = None,
    *,
    test: Iterable[str],
    progress: bool = True,
) -> Distilled:
    """
    Train a retriever on its teacher's scores.

    :param student: The query encoder, or, with `update="both"`, the encoder of queries and documents. It is changed.
    :param index: The index that it searches; it is only read.
    :param workspace: Holds what a killed run needs to go on.
    :param dev: Judged queries to select on; None holds some of the training set out, judged by the teacher.
    :param test: Queries that it will be measured on: they are neither learnt from nor selected on.
    :returns: The student, as it was best on dev.
    :raises ValueError: If the set is not labelled, teaches nothing, or belongs to other vectors; or if the loss
        diverges before there is a checkpoint to keep.
    """
    material = material_of(student, training_set, index, settings, dev, test)
    return train_on(student, index, settings, workspace, material, progress)


def material_of(
    student: SentenceTransformer,
    training_set: TrainingSet,
    index: IndexView,
    settings: DistillationSettings,
    dev: Dev | None,
    test: Iterable[str],
) -> Material:
    """Choose what is learnt and selected on, see `distill`, and check all that can be before the work begins."""
    rows = list(training_set.labelled())
    everything = targets_of(rows, index.ids, settings.passages)
    vectors = student_vectors(student, everything.queries)
    by_id = dict(zip(everything.query_ids, vectors, strict=True))
    check_same_vectors(rows, training_set.manifest["similarity"], index, by_id)
    test = list(test)
    targets, vectors = _without(everything, vectors, test)
    _check_enough(len(targets), settings)
    chosen = dev.without(Asked(test)) if dev else held_out(targets, index, settings.training.seed)
    targets, vectors = _without(targets, vectors, chosen.queries.values())
    _check_enough(len(targets), settings)
    left_out = {
        "train": len(everything) - len(targets) - (0 if dev else len(chosen.queries)),
        "dev": len(dev.queries) - len(chosen.queries) if dev else 0,
    }
    negatives = None
    if mines_negatives(settings.loss):
        found, negatives = hard_negatives(vectors, targets.candidates[:, 0], index.ranking_vectors, NEGATIVES)
        _check_enough(len(found), settings)
        targets, vectors = targets.part(found), vectors[found]
    run = {
        "settings": settings,
        "index": index.fingerprint,
        "labels": fingerprint([targets.queries, targets.candidates.tolist(), targets.scores.tolist()]),
        "dev": fingerprint([chosen.queries, chosen.qrels]),
        # Not the vectors themselves: another number of threads may change their last bits.
        "student": [round(float(value), 3) for value in vectors[0, :16]],
    }
    return Material(targets, negatives, vectors, chosen, left_out, run)


def _without(targets: Targets, vectors: np.ndarray, asked: Iterable[str]) -> tuple[Targets, np.ndarray]:
    """The queries that are not asked elsewhere, by their texts: ids may differ for one question."""
    known = Asked(asked)
    kept = np.array([row for row, query in enumerate(targets.queries) if query not in known], dtype=int)
    return targets.part(kept), vectors[kept]


def train_on(
    student: SentenceTransformer,
    index: IndexView,
    settings: DistillationSettings,
    workspace: Path,
    material: Material,
    progress: bool,
) -> Distilled:
    """Train a student on what was chosen for it, see `distill`."""
    checkpoints = workspace / "checkpoints"
    claim(workspace, material.run, checkpoints.glob("*"))
    targets, dev, moving = material.targets, material.dev, settings.update == "both"
    temperature = settings.teacher_temperature
    if temperature == "entropy":
        temperature = entropy_temperature(targets.scores, settings.target_entropy)
    temperature = float(temperature)
    loss = RetrieverLoss(
        student,
        settings.loss,
        targets.candidates,
        targets.scores / temperature,
        material.negatives,
        None if moving else index.ranking_vectors,
        temperature=settings.student_temperature,
        scale=_mean_length(material.vectors) * _mean_length(index.ranking_vectors[:2000]),
        seed=settings.training.seed,
    )
    kind = ReembeddingEvaluator if moving else IndexRetrievalEvaluator
    evaluator = kind(dev.queries, dev.qrels, index)
    before = float(evaluator(student)[METRIC])
    training = train_retriever(
        student,
        targets,
        material.negatives,
        index.texts if moving else None,
        loss,
        evaluator,
        checkpoints,
        settings.training,
        progress=progress,
    )
    after = float(evaluator(student)[METRIC])
    if after <= before:
        logger.warning(
            "The distilled retriever is not better on dev (nDCG@10 %.4f, before %.4f): stay with the old one. More "
            "queries or another teacher may help; `first_agrees` of the labels shows how far the teacher differs.",
            after,
            before,
        )
    return Distilled(
        student, before, after, training, len(targets), targets.skipped, material.left_out, temperature, dev
    )


def student_vectors(student: SentenceTransformer, texts: list[str]) -> np.ndarray:
    """Embed queries with the student's own prompt: `[texts, dim]`, float32."""
    return np.asarray(student.encode_query(texts, batch_size=64, show_progress_bar=False), dtype=np.float32)


def _check_enough(queries: int, settings: DistillationSettings) -> None:
    if queries < settings.training.batch_size:
        msg = (
            f"{queries} queries are left to train on, less than one batch of {settings.training.batch_size}: give "
            "more queries, or a smaller batch_size."
        )
        raise ValueError(msg)


def _mean_length(vectors: np.ndarray) -> float:
    return float(np.linalg.norm(vectors, axis=1).mean())
