"""How every job runs `SentenceTransformerTrainer`: it is resumed and stopped early, and its best checkpoint is kept."""

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
from sentence_transformers import SentenceTransformer, SentenceTransformerTrainer, SentenceTransformerTrainingArguments
from transformers import (
    EarlyStoppingCallback,
    PreTrainedModel,
    PrinterCallback,
    ProgressCallback,
    Trainer,
    TrainerState,
)

from haystack_distill.files.folders import written
from haystack_distill.files.processes import process_number
from haystack_distill.losses.weights import DivergedError
from haystack_distill.training.watching import watchers

logger = logging.getLogger(__name__)

METRIC = "dev_ndcg@10"
"""What an evaluator calls the measure that checkpoints are selected by, where it is retrieval."""

PATIENCE_IN_EVALUATIONS = 4
"""Training ends early when so many evaluations in a row were no better than the best."""


class Patience(EarlyStoppingCallback):
    """Ends training early; a checkpoint keeps its state under its class, so that a user's own may stand beside it."""


class Progress(ProgressCallback):
    """
    The trainer's bar with its ETA, named, and one line an evaluation instead of every figure that was logged.

    :param metric: What the evaluator calls the figure.
    :param name: What people call it.
    """

    def __init__(self, metric: str, name: str) -> None:
        super().__init__()
        self.key, self.name = f"eval_{metric}", name

    def on_train_begin(self, *args: Any, **kwargs: Any) -> None:
        """Name the bar."""
        super().on_train_begin(*args, **kwargs)
        if self.training_bar is not None:
            self.training_bar.set_description("Training")

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, Any] | None = None, **kwargs: Any) -> None:  # noqa: ARG002
        """Write the figure of an evaluation."""
        if self.training_bar is not None and logs and self.key in logs:
            self.training_bar.write(f"epoch {logs['epoch']:g}: {self.name.replace('_', ' ')} {logs[self.key]:.4f}")

    def shown_in(self, trainer: Trainer) -> None:
        """Take the place of what a trainer prints by itself: every logged step where there is no bar."""
        trainer.remove_callback(PrinterCallback)
        if not trainer.args.disable_tqdm:
            trainer.remove_callback(ProgressCallback)
            trainer.add_callback(self)


def history_of(trainer: Trainer, metric: str, name: str) -> list[dict[str, float]]:
    """One entry an evaluation: `epoch` and the figure of the evaluator, under a name."""
    entries = [entry for entry in trainer.state.log_history if f"eval_{metric}" in entry]
    return [{"epoch": float(entry["epoch"]), name: float(entry[f"eval_{metric}"])} for entry in entries]


@dataclass
class TrainingSummary:
    """
    What happened in training.

    :param seconds: Time spent training, evaluations included; where a run was killed and went on, by its last part.
    :param epochs: How many passes over the texts were planned.
    :param history: One entry an evaluation: `epoch` and the dev measure, such as `dev_ndcg@10`.
    :param diverged: Whether training stopped because the loss was no number any more.
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

    :param rows: What the loss is computed on; several sets by name where there are several losses.
    :param loss: The loss, or one for each set.
    :param arguments: How to train; a run that finds checkpoints in `output_dir` goes on from the last complete one.
    :param metric: What the evaluator calls its main figure.
    :param trainer_arguments: What else the trainer takes, such as a data collator.
    :raises DivergedError: If the loss is no number before there is a checkpoint to keep.
    """
    student.model_card_data.generate_widget_examples = False
    # It would choose examples, with a bar of its own, for a card that is not kept.
    student.model_card_data.set_widget_examples = lambda dataset: None  # type: ignore[method-assign]  # noqa: ARG005
    # Each checkpoint has a model card, for which the hub would be asked about the last two folders of a local path.
    student.model_card_data.local_files_only = True
    trainer = trainer_class(
        model=student,
        args=arguments,
        train_dataset=rows,
        loss=loss,
        evaluator=evaluator,
        callbacks=[Patience(PATIENCE_IN_EVALUATIONS), *watchers().callbacks],
        **trainer_arguments,
    )
    Progress(metric, metric).shown_in(trainer)
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
    history = history_of(trainer, metric, metric)
    return TrainingSummary(time.perf_counter() - start, arguments.num_train_epochs, history, diverged)


def common_arguments(
    student: SentenceTransformer | PreTrainedModel, checkpoints: Path, seed: int, progress: bool, metric: str = METRIC
) -> dict[str, Any]:
    """Arguments that all jobs share: a linear schedule; each epoch ends with a checkpoint, and the best one is kept."""
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
        "report_to": watchers().report_to or "none",
    }


def shared_batches(batch_size: int) -> dict[str, Any]:
    """Arguments by which processes share each batch: more of them give the same optimisation, and sooner."""
    return {
        "per_device_train_batch_size": batch_size,
        "accelerator_config": {"split_batches": True},
        "ddp_find_unused_parameters": False,
        "ddp_static_graph": True,  # poolers have no gradient; the routes of a pair run one after the other
    }


def last_checkpoint(folder: Path) -> str | None:
    """Find the last checkpoint in a folder that was written to its end, and remove half-written ones after it."""
    checkpoints = sorted(folder.glob("checkpoint-*"), key=lambda path: int(path.name.rsplit("-", 1)[1]))
    while checkpoints:
        if _is_whole(checkpoints[-1]):
            return str(checkpoints[-1])
        shutil.rmtree(checkpoints.pop())
    return None


def train_or_go_on(trainer: Trainer, checkpoints: Path) -> None:
    """Train, or go on from the last complete checkpoint. A run that had lost its patience only loads its best one."""
    checkpoint = last_checkpoint(checkpoints)
    if checkpoint is not None and _ended_early(Path(checkpoint)):
        trainer.state = TrainerState.load_from_json(str(Path(checkpoint) / "trainer_state.json"))
        trainer._load_best_model()
    else:
        if checkpoint is not None and not process_number():
            _acquaint(Path(checkpoint) / "trainer_state.json", trainer)
        trainer.train(resume_from_checkpoint=checkpoint)


def _acquaint(file: Path, trainer: Trainer) -> None:
    """Put callbacks that the killed run did not have into its state, where transformers expects all that keep one."""
    state = TrainerState.load_from_json(str(file))
    fresh: Any = trainer.state.stateful_callbacks  # class -> state, in spite of its annotation
    state.stateful_callbacks = fresh | state.stateful_callbacks
    with written(file) as unfinished:
        state.save_to_json(str(unfinished))


def _ended_early(checkpoint: Path) -> bool:
    state = json.loads((checkpoint / "trainer_state.json").read_text(encoding="utf-8"))
    stopping = state["stateful_callbacks"][Patience.__name__]
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
    """Without dropout, since the target is exact; on a CPU with plain attention, which learns faster on short texts."""
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
