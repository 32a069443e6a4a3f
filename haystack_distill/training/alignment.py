# SPDX-FileCopyrightText: 2026-present haystack-distill contributors
#
# SPDX-License-Identifier: Apache-2.0

"""What is handed to `SentenceTransformerTrainer` to align a student with its teacher's vectors."""

import math
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from datasets import Dataset
from sentence_transformers import (
    SentenceTransformer,
    SentenceTransformerTrainer,
    SentenceTransformerTrainingArguments,
)
from transformers import EarlyStoppingCallback, PrinterCallback, ProgressCallback

from haystack_distill.losses.alignment import AlignmentLoss
from haystack_distill.students.cutting import find_stack
from haystack_distill.students.token_table import is_table
from haystack_distill.teachers.bi_encoder import bf16_is_fast
from haystack_distill.training.batches import LengthBatchSampler
from haystack_distill.training.index_evaluator import METRIC, IndexRetrievalEvaluator

LAYERED_TOKENS, TABLE_TOKENS = 1_200_000, 5_000_000
"""How many tokens a student is trained on by default: some minutes on two cores."""

MIN_EPOCHS, MAX_EPOCHS = 1, 12
PATIENCE = 4
"""Training ends early when so many evaluations in a row were no better than the best."""


class _Progress(ProgressCallback):
    """The trainer's bar with its ETA, and one line an evaluation instead of every figure that was logged."""

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, Any] | None = None, **kwargs: Any) -> None:  # noqa: ARG002
        if self.training_bar is not None and logs and f"eval_{METRIC}" in logs:
            self.training_bar.write(f"epoch {logs['epoch']:g}: dev nDCG@10 {logs[f'eval_{METRIC}']:.4f}")


@dataclass(frozen=True)
class TrainingSettings:
    """
    How a student is trained. None stands for what suits the student.

    :param epochs: Passes over the texts; by default as many as fit the token budget.
    :param batch_size: Texts a step.
    :param learning_rate: Peak rate, after a warm-up over 5 % of the steps, falling linearly to 0.
    :param embedding_learning_rate: The same for the token embeddings, which are rarely updated and need larger steps.
    :param seed: Of order and sampling.
    """

    epochs: int | None = None
    batch_size: int = 64
    learning_rate: float | None = None
    embedding_learning_rate: float | None = None
    seed: int = 0


@dataclass
class TrainingSummary:
    """
    What happened in training.

    :param seconds: Time spent training, evaluations included, over all resumed parts.
    :param epochs: Passes over the texts that were planned.
    :param history: One entry an evaluation: epoch and dev nDCG@10.
    """

    seconds: float
    epochs: int
    history: list[dict[str, float]] = field(default_factory=list)


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

    :param student: The student.
    :param texts: Queries or text from the index.
    :param teacher_vectors: What the student should make of them, `[texts, dim]`.
    :param loss: The loss.
    :param evaluator: The dev measure.
    :param checkpoints: Where checkpoints are kept; a run that finds some goes on from the last complete one.
    :param settings: How to train.
    :param progress: Whether to show a progress bar.
    :returns: What happened.
    """
    student.model_card_data.generate_widget_examples = False
    rows = Dataset.from_dict({"query": texts}).add_column("label", list(teacher_vectors))
    arguments = _arguments(student, texts, checkpoints, settings, progress)
    trainer = SentenceTransformerTrainer(
        model=student,
        args=arguments,
        train_dataset=rows,
        loss=loss,
        evaluator=evaluator,
        callbacks=[EarlyStoppingCallback(early_stopping_patience=PATIENCE)],
    )
    trainer.remove_callback(PrinterCallback)  # without a progress bar it would print every logged step
    if progress:
        trainer.remove_callback(ProgressCallback)
        trainer.add_callback(_Progress)
    start = time.perf_counter()
    with _trainable(student):
        trainer.train(resume_from_checkpoint=last_checkpoint(checkpoints))
    # The trainer leaves its bf16 context around `forward`; what is measured and saved must run as it will be loaded.
    trainer.accelerator.unwrap_model(student, keep_fp32_wrapper=False)
    student.eval()
    history = [
        {"epoch": float(entry["epoch"]), "dev_ndcg@10": float(entry[f"eval_{METRIC}"])}
        for entry in trainer.state.log_history
        if f"eval_{METRIC}" in entry
    ]
    return TrainingSummary(time.perf_counter() - start, int(arguments.num_train_epochs), history)


def last_checkpoint(folder: Path) -> str | None:
    """
    The last checkpoint that was written to its end; half-written ones are removed.

    :param folder: Where the checkpoints are.
    :returns: Its path, or None.
    """
    found = sorted(folder.glob("checkpoint-*"), key=lambda path: int(path.name.rsplit("-", 1)[1]))
    while found:
        # The trainer writes trainer_state.json before the weights of the random generators, its last file.
        if (found[-1] / "trainer_state.json").exists() and list(found[-1].glob("rng_state*.pth")):
            return str(found[-1])
        shutil.rmtree(found.pop())
    return None


def _arguments(
    student: SentenceTransformer, texts: list[str], checkpoints: Path, settings: TrainingSettings, progress: bool
) -> SentenceTransformerTrainingArguments:
    table = is_table(student)
    batch_size = settings.batch_size * (2 if table else 1)
    return SentenceTransformerTrainingArguments(
        output_dir=str(checkpoints),
        num_train_epochs=settings.epochs or _epochs_for(student, texts),
        per_device_train_batch_size=batch_size,
        per_device_eval_batch_size=128,
        batch_sampler=LengthBatchSampler,
        learning_rate=settings.learning_rate or (1e-2 if table else 1e-3),
        learning_rate_mapping={} if table else {_embedding_name(student): settings.embedding_learning_rate or 1e-2},
        lr_scheduler_type="linear",
        warmup_steps=0.05,
        weight_decay=0.0,
        optim="adamw_torch_fused",
        bf16=not table and bf16_is_fast(student.device),
        use_cpu=student.device.type == "cpu",
        prompts=student.prompts.get("query") or None,
        eval_strategy="epoch",
        save_strategy="epoch",
        save_total_limit=1,
        load_best_model_at_end=True,
        metric_for_best_model=f"eval_{METRIC}",
        greater_is_better=True,
        logging_steps=50,
        seed=settings.seed,
        data_seed=settings.seed,
        disable_tqdm=not progress,
        dataloader_pin_memory=False,
        report_to="none",
    )


def _epochs_for(student: SentenceTransformer, texts: list[str]) -> int:
    """As many passes as the token budget allows, from the mean length of a sample."""
    sample = texts[:: max(1, len(texts) // 500)]
    tokenizer = student.tokenizer
    encodings = tokenizer.encode_batch(sample) if is_table(student) else tokenizer(sample)["input_ids"]
    tokens = len(texts) * sum(len(encoding) for encoding in encodings) / len(sample)
    budget = TABLE_TOKENS if is_table(student) else LAYERED_TOKENS
    return max(MIN_EPOCHS, min(MAX_EPOCHS, math.floor(budget / tokens)))


def _embedding_name(student: SentenceTransformer) -> str:
    """The name of the token embeddings, as a pattern for the trainer."""
    table = find_stack(student).model.get_input_embeddings().weight
    return next(name for name, parameter in student.named_parameters() if parameter is table).replace(".", r"\.")


@contextmanager
def _trainable(student: SentenceTransformer) -> Iterator[None]:
    """
    No dropout, since the target is exact; and on a CPU plain attention, whose backward pass is faster on short texts.
    """
    dropouts = [(module, module.p) for module in student.modules() if isinstance(module, torch.nn.Dropout)]
    for module, _ in dropouts:
        module.p = 0.0
    model = None if is_table(student) else find_stack(student).model
    attention = model.config._attn_implementation if model is not None else None
    if model is not None and student.device.type == "cpu":
        model.set_attn_implementation("eager")
    try:
        yield
    finally:
        for module, probability in dropouts:
            module.p = probability
        if model is not None:
            model.set_attn_implementation(attention)
