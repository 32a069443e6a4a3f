"""What is handed to `SentenceTransformerTrainer` to align a student with its teacher's vectors."""

import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from datasets import Dataset
from sentence_transformers import (
    SentenceTransformer,
    SentenceTransformerTrainingArguments,
)

from haystack_distill.evaluation.evaluators import IndexRetrievalEvaluator
from haystack_distill.files.precision import bf16_is_fast
from haystack_distill.losses.alignment import AlignmentLoss
from haystack_distill.students.cutting import find_stack
from haystack_distill.students.token_table import is_table
from haystack_distill.training.batches import LengthBatchSampler
from haystack_distill.training.trainer import TrainingSummary, common_arguments, run_trainer, shared_batches

LAYERED_TOKENS, TABLE_TOKENS = 1_200_000, 5_000_000
"""How many tokens a student is trained on at most by default: some minutes on two cores."""

LAYERED_WORK = 1.3e13
"""
Tokens times weights of the layers, at most by default: three layers of MiniLM (5.3 million weights) still get all.
A deeper or wider student gets fewer, since each costs more and it has less to learn anew.
"""

HEAVY, HEAVY_SHARE = 30_000_000, 0.1
"""
From so many weights in its layers on a student learns at a tenth of the rates: much of the teacher is in it yet, and
large steps undo that (six and nine layers of all-mpnet-base-v2: docs/decisions/0001).
"""

MAX_EPOCHS, WHOLE = 12, 0.6
"""Passes over the texts at most; and from which part of the texts on all are taken, for one whole pass."""


@dataclass(frozen=True)
class TrainingSettings:
    """
    How a student is trained. None stands for what suits the student.

    :param epochs: Passes over the texts; by default as many as fit the token budget, and one over a part of the texts
        where not even one fits.
    :param batch_size: Texts a step, over all processes of `torchrun`; a token table takes twice as many.
    :param learning_rate: Peak rate, after a warm-up over 5 % of the steps, falling linearly to 0.
    :param embedding_learning_rate: The same for the token embeddings, which are rarely updated and need larger steps.
        A token table is nothing else, and takes it where no `learning_rate` is given.
    """

    epochs: float | None = None
    batch_size: int = 64
    learning_rate: float | None = None
    embedding_learning_rate: float | None = None
    seed: int = 0


def train(
    student: SentenceTransformer,
    texts: list[str],
    teacher_vectors: np.ndarray,
    loss: AlignmentLoss,
    evaluator: IndexRetrievalEvaluator,
    checkpoints: Path,
    settings: TrainingSettings,
    *,
    progress: bool = True,
) -> TrainingSummary:
    """
    Train a student in place; it ends as its best checkpoint on dev.

    :param teacher_vectors: What the student should make of them, `[texts, dim]`.
    :param checkpoints: Where checkpoints are kept; a run that finds some goes on from the last complete one.
    """
    rows = Dataset.from_dict({"query": texts}).add_column("label", list(teacher_vectors))
    return run_trainer(student, rows, loss, evaluator, _arguments(student, texts, checkpoints, settings, progress))


def _arguments(
    student: SentenceTransformer, texts: list[str], checkpoints: Path, settings: TrainingSettings, progress: bool
) -> SentenceTransformerTrainingArguments:
    table = is_table(student)
    batch_size = settings.batch_size * (2 if table else 1)
    rate, others = _rates(student, settings)
    return SentenceTransformerTrainingArguments(
        **common_arguments(student, checkpoints, settings.seed, progress),
        num_train_epochs=settings.epochs or max(1, min(MAX_EPOCHS, math.floor(_passes(student, texts)))),
        **shared_batches(batch_size),
        batch_sampler=LengthBatchSampler,
        learning_rate=rate,
        learning_rate_mapping=others,
        warmup_steps=0.05,
        bf16=not table and bf16_is_fast(student.device),
        prompts=student.prompts.get("query") or None,
    )


def _rates(student: SentenceTransformer, settings: TrainingSettings) -> tuple[float, dict[str, float]]:
    """The learning rate, and that of weights which have one of their own, by their name."""
    if is_table(student):
        return settings.learning_rate or settings.embedding_learning_rate or 1e-2, {}
    share = HEAVY_SHARE if _weights(student) >= HEAVY else 1.0
    embedding_rate = settings.embedding_learning_rate or share * 1e-2
    return settings.learning_rate or share * 1e-3, {_embedding_name(student): embedding_rate}


def texts_within_budget(student: SentenceTransformer, texts: list[str], settings: TrainingSettings) -> int:
    """
    How many texts training gets to: less than one pass is made over them where each costs much.

    :returns: At least 2; all of them if `epochs` is given.
    """
    passes = 1.0 if settings.epochs else _passes(student, texts)
    return len(texts) if passes >= WHOLE else max(2, math.ceil(passes * len(texts)))


def _passes(student: SentenceTransformer, texts: list[str]) -> float:
    """How many passes the budget allows, from the mean length of a sample."""
    sample = texts[:: max(1, len(texts) // 500)]
    tokenizer = student.tokenizer
    encodings = tokenizer.encode_batch(sample) if is_table(student) else tokenizer(sample)["input_ids"]
    tokens = len(texts) * sum(len(encoding) for encoding in encodings) / len(sample)
    return (TABLE_TOKENS if is_table(student) else _layered_tokens(student)) / tokens


def _layered_tokens(student: SentenceTransformer) -> float:
    return min(LAYERED_TOKENS, LAYERED_WORK / _weights(student))


def _weights(student: SentenceTransformer) -> int:
    return sum(weight.numel() for weight in find_stack(student).layers.parameters())


def _embedding_name(student: SentenceTransformer) -> str:
    """The name of the token embeddings, as a pattern for the trainer."""
    table = find_stack(student).model.get_input_embeddings().weight
    return next(name for name, parameter in student.named_parameters() if parameter is table).replace(".", r"\.")
