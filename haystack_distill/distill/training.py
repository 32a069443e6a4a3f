"""What is handed to `SentenceTransformerTrainer` to distil a teacher's scores into a retriever."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from datasets import Dataset
from sentence_transformers import SentenceTransformer, SentenceTransformerTrainingArguments
from sentence_transformers.base.evaluation import BaseEvaluator

from haystack_distill.distill.targets import Targets
from haystack_distill.files.precision import bf16_is_fast
from haystack_distill.losses.retriever import RetrieverLoss
from haystack_distill.students.token_table import is_table
from haystack_distill.training.adapters import adapted
from haystack_distill.training.trainer import TrainingSummary, common_arguments, run_trainer, shared_batches

FULL_RATE, LORA_RATE, TABLE_RATE = 2e-5, 2e-4, 1e-3
"""Peak learning rates: where all weights of layers move, where adapters do, where the rows of a token table do."""


@dataclass(frozen=True)
class RetrieverTraining:
    """How a retriever is trained: the settings that `RetrieverDistiller` explains. None is what suits the student."""

    epochs: int = 4
    batch_size: int = 32
    learning_rate: float | None = None
    lora_rank: int = 0
    seed: int = 0


def train_retriever(
    student: SentenceTransformer,
    targets: Targets,
    negatives: np.ndarray | None,
    documents: list[str] | None,
    loss: RetrieverLoss,
    evaluator: BaseEvaluator,
    checkpoints: Path,
    settings: RetrieverTraining,
    *,
    progress: bool = True,
) -> TrainingSummary:
    """
    Train a student in place; it ends as its best checkpoint on dev.

    :param negatives: Rows of the index, `[queries, negatives]`.
    :param documents: The texts of the index, if documents are to be embedded with the student; None if only queries
        are.
    :param checkpoints: Where checkpoints are kept; a run that finds some goes on from the last complete one.
    """
    columns: dict[str, list] = {"query": targets.queries}
    if documents is not None:
        rows = targets.candidates if negatives is None else np.concatenate([targets.candidates, negatives], axis=1)
        columns |= {f"passage_{place}": [documents[row] for row in rows[:, place]] for place in range(rows.shape[1])}
    data = Dataset.from_dict({**columns, "label": list(range(len(targets)))})
    prompts = {"query": student.prompts.get("query") or ""}
    prompts |= {name: student.prompts.get("document") or "" for name in columns if name != "query"}
    arguments = _arguments(student, prompts, checkpoints, settings, progress)
    with adapted(student, settings.lora_rank, settings.seed) as trainer_class:
        return run_trainer(student, data, loss, evaluator, arguments, trainer_class=trainer_class)


def _arguments(
    student: SentenceTransformer,
    prompts: dict[str, str],
    checkpoints: Path,
    settings: RetrieverTraining,
    progress: bool,
) -> SentenceTransformerTrainingArguments:
    table = is_table(student)
    return SentenceTransformerTrainingArguments(
        **common_arguments(student, checkpoints, settings.seed, progress),
        **shared_batches(settings.batch_size),
        num_train_epochs=settings.epochs,
        dataloader_drop_last=True,
        learning_rate=settings.learning_rate
        or (TABLE_RATE if table else LORA_RATE if settings.lora_rank else FULL_RATE),
        warmup_steps=0.1,
        bf16=not table and bf16_is_fast(student.device),
        prompts={name: prompt for name, prompt in prompts.items() if prompt} or None,
    )
