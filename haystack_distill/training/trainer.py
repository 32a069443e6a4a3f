# SPDX-FileCopyrightText: 2026-present haystack-distill contributors
#
# SPDX-License-Identifier: Apache-2.0

"""How every job here is run by `SentenceTransformerTrainer`: resumed, stopped early, its best checkpoint kept."""

import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from sentence_transformers import (
    SentenceTransformer,
    SentenceTransformerTrainer,
    SentenceTransformerTrainingArguments,
)
from transformers import EarlyStoppingCallback, PrinterCallback, ProgressCallback

from haystack_distill.students.cutting import find_stack
from haystack_distill.students.token_table import is_table
from haystack_distill.training.index_evaluator import METRIC

PATIENCE = 4
"""Training ends early when so many evaluations in a row were no better than the best."""


class _Progress(ProgressCallback):
    """The trainer's bar with its ETA, and one line an evaluation instead of every figure that was logged."""

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, Any] | None = None, **kwargs: Any) -> None:  # noqa: ARG002
        if self.training_bar is not None and logs and f"eval_{METRIC}" in logs:
            self.training_bar.write(f"epoch {logs['epoch']:g}: dev nDCG@10 {logs[f'eval_{METRIC}']:.4f}")


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


def run_trainer(
    student: SentenceTransformer,
    rows: Dataset,
    loss: torch.nn.Module,
    evaluator: Any,
    arguments: SentenceTransformerTrainingArguments,
    *,
    trainer_class: type[SentenceTransformerTrainer] = SentenceTransformerTrainer,
    **trainer_arguments: Any,
) -> TrainingSummary:
    """
    Train a student in place; it ends as its best checkpoint on dev.

    :param student: The student.
    :param rows: What the loss is computed on.
    :param loss: The loss.
    :param evaluator: The dev measure; its main figure is called `dev_dot_ndcg@10`.
    :param arguments: How to train; a run that finds checkpoints in `output_dir` goes on from the last complete one.
    :param trainer_class: The trainer, or a child of it.
    :param trainer_arguments: What else the trainer takes, such as a data collator.
    :returns: What happened.
    """
    student.model_card_data.generate_widget_examples = False
    trainer = trainer_class(
        model=student,
        args=arguments,
        train_dataset=rows,
        loss=loss,
        evaluator=evaluator,
        callbacks=[EarlyStoppingCallback(early_stopping_patience=PATIENCE)],
        **trainer_arguments,
    )
    trainer.remove_callback(PrinterCallback)  # without a progress bar it would print every logged step
    if not arguments.disable_tqdm:
        trainer.remove_callback(ProgressCallback)
        trainer.add_callback(_Progress)
    start = time.perf_counter()
    with _trainable(student):
        trainer.train(resume_from_checkpoint=last_checkpoint(Path(str(arguments.output_dir))))
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
