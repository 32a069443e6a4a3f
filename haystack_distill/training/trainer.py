# SPDX-FileCopyrightText: 2026-present haystack-distill contributors
#
# SPDX-License-Identifier: Apache-2.0

"""How every job here is run by `SentenceTransformerTrainer`: resumed, stopped early, its best checkpoint kept."""

import json
import logging
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset, DatasetDict
from sentence_transformers import (
    SentenceTransformer,
    SentenceTransformerTrainer,
    SentenceTransformerTrainingArguments,
)
from transformers import (
    EarlyStoppingCallback,
    PreTrainedModel,
    PrinterCallback,
    ProgressCallback,
    Trainer,
    TrainerState,
)

from haystack_distill.losses.weights import DivergedError
from haystack_distill.training.index_evaluator import METRIC

logger = logging.getLogger(__name__)

PATIENCE = 4
"""Training ends early when so many evaluations in a row were no better than the best."""


class _Progress(ProgressCallback):
    """The trainer's bar with its ETA, and one line an evaluation instead of every figure that was logged."""

    def __init__(self, metric: str) -> None:
        super().__init__()
        self.metric = metric

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, Any] | None = None, **kwargs: Any) -> None:  # noqa: ARG002
        if self.training_bar is not None and logs and f"eval_{self.metric}" in logs:
            value = logs[f"eval_{self.metric}"]
            self.training_bar.write(f"epoch {logs['epoch']:g}: {_shown(self.metric)} {value:.4f}")


@dataclass
class TrainingSummary:
    """
    What happened in training.

    :param seconds: Time spent training, evaluations included; of the last part, where a run was killed and went on.
    :param epochs: Passes over the texts that were planned.
    :param history: One entry an evaluation: `epoch` and the dev measure (`dev_ndcg@10`).
    :param diverged: Whether it was stopped because the loss was no number any more.
    """

    seconds: float
    epochs: float
    history: list[dict[str, float]] = field(default_factory=list)
    diverged: bool = False


def run_trainer(
    student: SentenceTransformer,
    rows: Dataset | DatasetDict,
    loss: torch.nn.Module | dict[str, torch.nn.Module],
    evaluator: Any,
    arguments: SentenceTransformerTrainingArguments,
    *,
    metric: str = METRIC,
    trainer_class: type[SentenceTransformerTrainer] = SentenceTransformerTrainer,
    **trainer_arguments: Any,
) -> TrainingSummary:
    """
    Train a student in place; it ends as its best checkpoint on dev.

    :param student: The student.
    :param rows: What the loss is computed on; several sets by name where there are several losses.
    :param loss: The loss, or one for each set.
    :param evaluator: The dev measure.
    :param arguments: How to train; a run that finds checkpoints in `output_dir` goes on from the last complete one.
    :param metric: What the evaluator calls its main figure.
    :param trainer_class: The trainer, or a child of it.
    :param trainer_arguments: What else the trainer takes, such as a data collator.
    :returns: What happened.
    :raises DivergedError: If the loss is no number before there is a checkpoint to keep.
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
        trainer.add_callback(_Progress(metric))
    start = time.perf_counter()
    diverged = False
    with _trainable(student):
        try:
            train_or_go_on(trainer, Path(str(arguments.output_dir)))
        except DivergedError as error:
            if trainer.state.best_model_checkpoint is None:
                raise
            logger.warning("%s Training stops; the best checkpoint before is kept.", error)
            diverged = True
            trainer._load_best_model()
    # The trainer leaves its bf16 context around `forward`; what is measured and saved must run as it will be loaded.
    trainer.accelerator.unwrap_model(student, keep_fp32_wrapper=False)
    student.eval()
    history = [
        {"epoch": float(entry["epoch"]), _shown(metric).replace(" ", "_"): float(entry[f"eval_{metric}"])}
        for entry in trainer.state.log_history
        if f"eval_{metric}" in entry
    ]
    return TrainingSummary(time.perf_counter() - start, arguments.num_train_epochs, history, diverged)


def _shown(metric: str) -> str:
    """`dev_dot_ndcg@10` is `dev ndcg@10` to people."""
    return metric.replace("_dot_", "_").replace("_", " ")


def common_arguments(
    student: SentenceTransformer, checkpoints: Path, seed: int, progress: bool, metric: str = METRIC
) -> dict[str, Any]:
    """
    What is the same for every job: a linear schedule, an evaluation and a checkpoint each epoch, the best one kept.

    :param student: The student.
    :param checkpoints: Where its checkpoints are kept.
    :param seed: Of order and sampling.
    :param progress: Whether to show a progress bar.
    :param metric: What the evaluator calls its main figure.
    :returns: For `SentenceTransformerTrainingArguments`.
    """
    return {
        "output_dir": str(checkpoints),
        "per_device_eval_batch_size": 128,
        "lr_scheduler_type": "linear",
        "weight_decay": 0.0,
        "optim": "adamw_torch_fused",
        "use_cpu": student.device.type == "cpu",
        "eval_strategy": "epoch",
        "save_strategy": "epoch",
        "save_total_limit": 1,
        "load_best_model_at_end": True,
        "metric_for_best_model": f"eval_{metric}",
        "greater_is_better": True,
        "restore_callback_states_from_checkpoint": True,  # how long it has been patient
        "logging_steps": 50,
        "seed": seed,
        "data_seed": seed,
        "disable_tqdm": not progress,
        "dataloader_pin_memory": False,
        "report_to": "none",
    }


def last_checkpoint(folder: Path) -> str | None:
    """
    The last checkpoint that was written to its end; half-written ones are removed.

    :param folder: Where the checkpoints are.
    :returns: Its path, or None.
    """
    found = sorted(folder.glob("checkpoint-*"), key=lambda path: int(path.name.rsplit("-", 1)[1]))
    while found:
        if _is_whole(found[-1]):
            return str(found[-1])
        shutil.rmtree(found.pop())
    return None


def train_or_go_on(trainer: Trainer, checkpoints: Path) -> None:
    """
    Train, or go on from the last complete checkpoint. A run that had lost its patience only loads its best one.

    :param trainer: The trainer.
    :param checkpoints: Where its checkpoints are.
    """
    checkpoint = last_checkpoint(checkpoints)
    if checkpoint is not None and _ended_early(Path(checkpoint)):
        trainer.state = TrainerState.load_from_json(str(Path(checkpoint) / "trainer_state.json"))
        trainer._load_best_model()
    else:
        trainer.train(resume_from_checkpoint=checkpoint)


def _ended_early(checkpoint: Path) -> bool:
    state = json.loads((checkpoint / "trainer_state.json").read_text(encoding="utf-8"))
    stopping = state["stateful_callbacks"]["EarlyStoppingCallback"]
    return stopping["attributes"]["early_stopping_patience_counter"] >= stopping["args"]["early_stopping_patience"]


def _is_whole(checkpoint: Path) -> bool:
    """Whether its last file can be read; which of the two that is depends on the version of transformers."""
    try:
        json.loads((checkpoint / "trainer_state.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return bool(list(checkpoint.glob("rng_state*.pth")))


@contextmanager
def _trainable(student: SentenceTransformer) -> Iterator[None]:
    """
    No dropout, since the target is exact; and on a CPU plain attention, whose backward pass is faster on short texts.
    """
    dropouts = [(module, module.p) for module in student.modules() if isinstance(module, torch.nn.Dropout)]
    for module, _ in dropouts:
        module.p = 0.0
    # One transformer, none in a token table, two where queries and documents have encoders of their own.
    models = [module for module in student.modules() if isinstance(module, PreTrainedModel)]
    attentions = [model.config._attn_implementation for model in models]
    if student.device.type == "cpu":
        for model in models:
            model.set_attn_implementation("eager")
    try:
        yield
    finally:
        for module, probability in dropouts:
            module.p = probability
        for model, attention in zip(models, attentions, strict=True):
            model.set_attn_implementation(attention)
