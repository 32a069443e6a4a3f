"""What is handed to transformers' `Trainer` to teach a reader answers: teacher forcing, all but the answer masked."""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel, Trainer, TrainingArguments

from haystack_distill.files.precision import bf16_is_fast
from haystack_distill.files.processes import share_of_mean
from haystack_distill.teachers.causal import CausalReader, padded
from haystack_distill.teachers.fusion_in_decoder import FusionReader
from haystack_distill.training.adapters import with_adapters
from haystack_distill.training.trainer import (
    Patience,
    Progress,
    TrainingSummary,
    common_arguments,
    history_of,
    shared_batches,
    train_or_go_on,
)
from haystack_distill.training.watching import watchers

MASKED = -100
"""The label of a token that no loss is computed on."""

PATIENCE = 2
"""Training ends early when so many evaluations in a row were no better than the best."""

FULL_RATE, LORA_RATE = 5e-5, 2e-4
"""Peak learning rates: DKRR's (arXiv 2012.04584, the authors' code) where all weights move, LoRA's where few do."""


@dataclass(frozen=True)
class AnswerSettings:
    """How a reader is trained: the settings that `ReaderFineTuner` explains."""

    epochs: int = 3
    batch_size: int = 8
    gradient_accumulation: int = 1
    learning_rate: float | None = None
    lora_rank: int = 0
    seed: int = 0


def train_reader(
    reader: CausalReader | FusionReader,
    prompts: Sequence[Any],
    held_out: Sequence[Any],
    checkpoints: Path,
    settings: AnswerSettings,
    *,
    progress: bool = True,
) -> TrainingSummary:
    """
    Train a reader in place; it ends as its best checkpoint on the held-out prompts.

    The loss is the mean cross-entropy of the answers' tokens and of the end token after each, which are what scores
    later.

    :param prompts: Its prompts, whose target ends with the end token.
    :param checkpoints: Where checkpoints are kept; a run that finds some goes on from the last complete one.
    :returns: What happened; the history has `epoch` and `held_out_loss`.
    """
    model: Any = with_adapters(reader.model, settings.lora_rank) if settings.lora_rank else reader.model
    fused = isinstance(reader, FusionReader)
    trainer = (_FusionTrainer if fused else Trainer)(
        model=model,
        args=_arguments(reader.model, checkpoints, settings, progress),
        train_dataset=_rows(reader, prompts),
        eval_dataset=_rows(reader, held_out),
        data_collator=_FusedCollator(reader) if isinstance(reader, FusionReader) else _pad_causal,
        callbacks=[Patience(PATIENCE), *watchers().callbacks],
    )
    Progress("loss", "held-out loss").shown_in(trainer)
    start = time.perf_counter()
    train_or_go_on(trainer, checkpoints)
    # The trainer leaves its bf16 context around `forward`; what is measured and saved must run as it will be loaded.
    model = trainer.accelerator.unwrap_model(model, keep_fp32_wrapper=False)
    reader.model = model.merge_and_unload() if settings.lora_rank else model
    reader.model.eval()
    history = history_of(trainer, "loss", "held_out_loss")
    return TrainingSummary(time.perf_counter() - start, settings.epochs, history)


class _FusionTrainer(Trainer):
    """Fusion-in-Decoder: passages are encoded alone, and the decoder reads the states of all of them."""

    def __init__(self, **arguments: Any) -> None:
        super().__init__(**arguments)
        self.model_accepts_loss_kwargs = False  # the loss below is a mean: accumulated steps share it equally

    def compute_loss(  # type: ignore[override]
        self, model: nn.Module, inputs: Any, return_outputs: bool = False, **_: Any
    ) -> Any:
        """The cross-entropy of the answers in what `_FusedCollator` made."""
        encoder = self.accelerator.unwrap_model(model).get_encoder()
        with self.accelerator.autocast():
            hidden = encoder(input_ids=inputs["passages"], attention_mask=inputs["mask"]).last_hidden_state
            fused = FusionReader.fuse(
                [
                    torch.cat([row[:length] for row, length in zip(rows, lengths, strict=True)])
                    for rows, lengths in zip(
                        hidden.split(inputs["counts"]), inputs["mask"].sum(1).split(inputs["counts"]), strict=True
                    )
                ]
            )
            outputs = model(**fused, decoder_input_ids=inputs["decoder"], labels=inputs["labels"], use_cache=False)
        loss = outputs.loss * share_of_mean(int((inputs["labels"] != MASKED).sum())) if model.training else outputs.loss
        return (loss, outputs) if return_outputs else loss


def _rows(reader: CausalReader | FusionReader, prompts: Sequence[Any]) -> Any:
    if isinstance(reader, FusionReader):
        return [{"passages": [part.ids for part in prompt.inputs], "target": list(prompt.target)} for prompt in prompts]
    rows = []
    for prompt in prompts:
        labels = [MASKED] * len(prompt.ids)
        for place in prompt.target():
            labels[place] = prompt.ids[place]
        rows.append({"input_ids": list(prompt.ids), "labels": labels})
    return rows


def _pad_causal(rows: list[dict[str, Any]]) -> dict[str, Tensor]:
    """Prompts are padded at their end, as they are scored."""
    ids, mask = padded([row["input_ids"] for row in rows], 0)
    labels, _ = padded([row["labels"] for row in rows], MASKED)
    return {"input_ids": ids, "attention_mask": mask, "labels": labels}


class _FusedCollator:
    """Batches for Fusion-in-Decoder."""

    def __init__(self, reader: FusionReader) -> None:
        self._opening = list(reader.opening)
        self._pad = reader.model.config.pad_token_id or 0

    def __call__(self, rows: list[dict[str, Any]]) -> dict[str, Any]:
        """
        Put questions together.

        :returns: `passages` and `mask` `[all passages, tokens]`, `counts` (how many passages each question has),
            `decoder` and `labels` `[questions, opening and answer tokens]`.
        """
        passages, mask = padded([ids for row in rows for ids in row["passages"]], self._pad)
        given = [MASKED] * (len(self._opening) - 1)
        labels, _ = padded([[*given, *row["target"]] for row in rows], MASKED)
        decoder, _ = padded([[*self._opening, *row["target"][:-1]] for row in rows], self._pad)
        counts = [len(row["passages"]) for row in rows]
        return {"passages": passages, "mask": mask, "counts": counts, "decoder": decoder, "labels": labels}


def _arguments(
    model: PreTrainedModel, checkpoints: Path, settings: AnswerSettings, progress: bool
) -> TrainingArguments:
    shared = common_arguments(model, checkpoints, settings.seed, progress, "loss")
    own: dict[str, Any] = {
        "num_train_epochs": settings.epochs,
        **shared_batches(settings.batch_size),
        "per_device_eval_batch_size": settings.batch_size,
        "gradient_accumulation_steps": settings.gradient_accumulation,
        "learning_rate": settings.learning_rate or (LORA_RATE if settings.lora_rank else FULL_RATE),
        "warmup_steps": 0.05,
        "weight_decay": 0.01,
        "bf16": bf16_is_fast(model.device),
        "greater_is_better": False,
        "prediction_loss_only": True,
        "remove_unused_columns": False,
        "label_names": ["labels"],
    }
    return TrainingArguments(**{**shared, **own})
