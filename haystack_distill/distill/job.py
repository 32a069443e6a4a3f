# SPDX-FileCopyrightText: 2026-present haystack-distill contributors
#
# SPDX-License-Identifier: Apache-2.0

"""DKRR, the whole job: from a labelled training set and the retriever that made it to a better one."""

import hashlib
import json
import logging
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer.evaluation import InformationRetrievalEvaluator

from haystack_distill.data.beir import Qrels
from haystack_distill.data.index import IndexView
from haystack_distill.data.sentences import unseen
from haystack_distill.data.training_set import RECIPROCAL_RANK, Row, TrainingSet
from haystack_distill.distill.pair_training import ReembeddingEvaluator
from haystack_distill.distill.targets import Targets, targets_of
from haystack_distill.distill.training import RetrieverTraining, train_retriever
from haystack_distill.files.folders import claim
from haystack_distill.losses.retriever import NAMES, RetrieverLoss
from haystack_distill.losses.temperature import entropy_temperature
from haystack_distill.losses.weights import checked_weights
from haystack_distill.training.adapters import check_lora
from haystack_distill.training.hard_negatives import hard_negatives
from haystack_distill.training.index_evaluator import METRIC, IndexRetrievalEvaluator
from haystack_distill.training.trainer import TrainingSummary

logger = logging.getLogger(__name__)

UPDATES = ("query", "both")
HELD_OUT_PART, HELD_OUT_MOST = 10, 400
NEGATIVES = 7
AGREE = 0.5
"""Correlation of a student's scores with the training set's from which both are taken to be about the same vectors."""


@dataclass(frozen=True)
class DistillationSettings:
    """
    What is to be learnt and how.

    :param update: `query`: the index stays as it is; `both`: documents move too and must be embedded again.
    :param loss: Loss name -> weight, of `kl`, `listwise`, `margin_mse`, `emdr2` and `contrastive`.
    :param teacher_temperature: Divides the teacher's scores; `entropy` sets it from `target_entropy`.
    :param target_entropy: Mean entropy of the teacher's distributions, as a share of the largest possible.
    :param student_temperature: Divides the student's scores, for vectors of length 1.
    :param passages: Candidates of each query that are used; None uses all.
    :param training: How to train.
    """

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
        object.__setattr__(self, "loss", checked_weights(self.loss, NAMES))  # from YAML they may be strings
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
class Dev:
    """
    Queries to select on.

    :param queries: Query id -> text.
    :param qrels: Their judgments.
    :param judged: Whether people judged them, or the teacher.
    """

    queries: dict[str, str]
    qrels: Qrels
    judged: bool


@dataclass(frozen=True)
class Distilled:
    """
    A trained student and how it came to be.

    :param student: The student.
    :param before: Dev nDCG@10 before training.
    :param after: And after.
    :param training: What happened in training.
    :param queries: How many queries it learnt from.
    :param skipped: Why rows were left out -> how many.
    :param teacher_temperature: What the teacher's scores were divided by.
    :param dev: What it was selected on.
    """

    student: SentenceTransformer
    before: float
    after: float
    training: TrainingSummary
    queries: int
    skipped: dict[str, int]
    teacher_temperature: float
    dev: Dev

    @property
    def better(self) -> bool:
        """Whether it is better on dev; if not, the retriever as it was stays the recommendation."""
        return self.after > self.before


def distill(
    student: SentenceTransformer,
    training_set: TrainingSet,
    index: IndexView,
    settings: DistillationSettings,
    workspace: Path,
    dev: Dev | None = None,
    test: Iterable[str] = (),
    *,
    progress: bool = True,
) -> Distilled:
    """
    Train a retriever on its teacher's scores.

    :param student: The query encoder, or, with `update="both"`, the encoder of queries and documents. It is changed.
    :param training_set: A labelled training set.
    :param index: The index that it searches; it is only read.
    :param settings: What is wanted.
    :param workspace: Holds what a killed run needs to go on.
    :param dev: Judged queries to select on; None holds some of the training set out, judged by the teacher.
    :param test: Queries that it will be measured on: like those of dev they are not learnt from.
    :param progress: Whether to show a progress bar.
    :returns: The student, as it was best on dev.
    :raises ValueError: If the set is not labelled, teaches nothing, or belongs to other vectors; or if the loss
        diverges before there is a checkpoint to keep.
    """
    rows = list(training_set.labelled())
    targets = targets_of(rows, index.ids, settings.passages)
    vectors = student_vectors(student, targets.queries)
    check_same_vectors(
        rows, training_set.manifest["similarity"], index, dict(zip(targets.query_ids, vectors, strict=True))
    )
    chosen = dev or held_out(targets, index, settings.training.seed)
    # By their texts: ids of two files may differ for one question, and be equal for two.
    left = set(unseen(targets.queries, [*chosen.queries.values(), *test]))
    kept = np.array([number for number, one in enumerate(targets.queries) if one in left], dtype=int)
    _check_enough(kept, settings)
    part, vectors = targets.part(kept), vectors[kept]
    negatives = None
    if "contrastive" in settings.loss:
        found, negatives = hard_negatives(vectors, part.candidates[:, 0], index.ranking_vectors, NEGATIVES)
        _check_enough(found, settings)
        part, vectors = part.part(found), vectors[found]
    checkpoints = workspace / "checkpoints"
    claim(workspace, _run(settings, index, part, chosen, vectors), checkpoints.glob("*"))
    temperature = _temperature(part, settings)
    moving = settings.update == "both"
    loss = RetrieverLoss(
        student,
        settings.loss,
        part.candidates,
        part.scores / temperature,
        negatives,
        None if moving else index.ranking_vectors,
        temperature=settings.student_temperature,
        scale=_mean_length(vectors) * _mean_length(index.ranking_vectors[:2000]),
        seed=settings.training.seed,
    )
    evaluator: InformationRetrievalEvaluator = IndexRetrievalEvaluator(chosen.queries, chosen.qrels, index)
    if moving:
        evaluator = ReembeddingEvaluator(chosen.queries, chosen.qrels, index)
    before = _ndcg(evaluator, student)
    training = train_retriever(
        student,
        part,
        negatives,
        index.texts if moving else None,
        loss,
        evaluator,
        checkpoints,
        settings.training,
        progress=progress,
    )
    after = _ndcg(evaluator, student)
    if after <= before:
        logger.warning(
            "The distilled retriever is not better on dev (nDCG@10 %.4f, before %.4f): stay with the old one. More "
            "queries or another teacher may help; `first_agrees` of the labels shows how far the teacher differs.",
            after,
            before,
        )
    return Distilled(student, before, after, training, len(part), targets.skipped, temperature, chosen)


def student_vectors(student: SentenceTransformer, texts: list[str]) -> np.ndarray:
    """
    Embed queries with the student's own prompt.

    :param student: The student.
    :param texts: The queries.
    :returns: `[texts, dim]`, float32.
    """
    return np.asarray(student.encode_query(texts, batch_size=64, show_progress_bar=False), dtype=np.float32)


def check_same_vectors(rows: list[Row], similarity: str, index: IndexView, vectors: dict[str, np.ndarray]) -> None:
    """
    Make sure that student, index and training set are about the same vectors.

    :param rows: The labelled rows of the training set.
    :param similarity: What their `retriever_scores` are.
    :param index: The index.
    :param vectors: Query id -> the student's vector.
    :raises ValueError: If they are not.
    """
    dim = len(next(iter(vectors.values())))
    if dim != index.dim:
        msg = f"The student makes vectors of {dim} dimensions and the index has {index.dim}: it was made for another."
        raise ValueError(msg)
    if similarity == RECIPROCAL_RANK:
        return  # found by words: there are no scores to compare with
    place = {document_id: number for number, document_id in enumerate(index.ids)}
    documents = index.ranking_vectors
    ours, theirs = [], []
    for row in rows:
        if row.query_id in vectors and all(one in place for one in row.document_ids):
            ours += (documents[[place[one] for one in row.document_ids]] @ vectors[row.query_id]).tolist()
            theirs += row.retriever_scores
        if len(ours) > 2000:
            break
    agreement = float(np.corrcoef(ours, theirs)[0, 1]) if np.std(ours) and np.std(theirs) else 0.0
    if agreement < AGREE:
        msg = (
            f"The training set was made with vectors of another model (its retriever's scores and this student's agree "
            f"at {agreement:.2f} only): build it with the retriever that is to be trained."
        )
        raise ValueError(msg)


def held_out(targets: Targets, index: IndexView, seed: int) -> Dev:
    """
    Keep some queries to select on, judged by their teacher: its favourite counts as relevant.

    :param targets: All queries.
    :param index: The index.
    :param seed: Of the choice.
    :returns: The dev queries.
    """
    count = max(1, min(HELD_OUT_MOST, len(targets) // HELD_OUT_PART))
    chosen = np.random.default_rng(seed).permutation(len(targets))[:count]
    return Dev(
        {targets.query_ids[row]: targets.queries[row] for row in chosen},
        {targets.query_ids[row]: {index.ids[targets.candidates[row, 0]]: 1} for row in chosen},
        judged=False,
    )


def _check_enough(queries: np.ndarray, settings: DistillationSettings) -> None:
    if len(queries) < settings.training.batch_size:
        msg = (
            f"{len(queries)} queries are left to train on, less than one batch of {settings.training.batch_size}: give "
            "more queries, or a smaller batch_size."
        )
        raise ValueError(msg)


def _ndcg(evaluator: Any, student: SentenceTransformer) -> float:
    return float(evaluator(student)[METRIC])


def _temperature(targets: Targets, settings: DistillationSettings) -> float:
    if settings.teacher_temperature == "entropy":
        return entropy_temperature(targets.scores, settings.target_entropy)
    return float(settings.teacher_temperature)


def _mean_length(vectors: np.ndarray) -> float:
    return float(np.linalg.norm(vectors, axis=1).mean())


def _run(
    settings: DistillationSettings, index: IndexView, targets: Targets, dev: Dev, vectors: np.ndarray
) -> dict[str, object]:
    content = json.dumps([targets.queries, targets.candidates.tolist(), targets.scores.tolist()])
    return {
        "settings": {**asdict(settings), "loss": dict(settings.loss)},
        "index": index.fingerprint,
        "labels": hashlib.sha256(content.encode()).hexdigest(),
        "dev": hashlib.sha256(json.dumps([dev.queries, dev.qrels]).encode()).hexdigest(),
        # Not the vectors themselves: another number of threads may change their last bits.
        "student": [round(float(value), 3) for value in vectors[0, :16]],
    }
