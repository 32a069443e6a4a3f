"""LoRA (arXiv 2106.09685): small matrices beside the layers learn, and are merged into them at the end."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from sentence_transformers import SentenceTransformer, SentenceTransformerTrainer

from haystack_distill.students.cutting import find_stack
from haystack_distill.students.token_table import is_table

CHECKPOINT = "adapters.safetensors"


def check_lora(rank: int) -> None:
    """
    Make sure, before anything long begins, that adapters of this rank can be trained; 0 needs nothing.

    :raises ImportError: If peft is not installed.
    :raises ValueError: If the rank is negative.
    """
    if rank < 0:
        msg = f"lora_rank={rank} must be at least 0; 0 moves all weights."
        raise ValueError(msg)
    if rank:
        try:
            import peft  # noqa: F401
        except ImportError as error:
            msg = "LoRA needs peft, which is not installed: `pip install 'haystack-distill[lora]'`, or lora_rank=0."
            raise ImportError(msg) from error


def with_adapters(model: Any, rank: int) -> Any:
    """Put adapters of a rank beside every linear layer of a reader but the last, and freeze the rest."""
    from peft import LoraConfig, get_peft_model

    task = "SEQ_2_SEQ_LM" if model.config.is_encoder_decoder else "CAUSAL_LM"
    return get_peft_model(model, LoraConfig(r=rank, lora_alpha=2 * rank, target_modules="all-linear", task_type=task))


@contextmanager
def adapted(student: SentenceTransformer, rank: int, seed: int) -> Iterator[type[SentenceTransformerTrainer]]:
    """
    Give a bi-encoder adapters that learn in its place for the length of a block, and merge them at its end.

    :param rank: The rank of the adapters; 0 lets all weights move.
    :returns: The trainer to use, whose checkpoints hold the adapters alone.
    :raises ValueError: If the student has no layers.
    """
    if not rank:
        yield SentenceTransformerTrainer
        return
    if is_table(student):
        msg = "lora_rank needs an encoder with layers, and this one is a token table: use lora_rank=0."
        raise ValueError(msg)
    from peft import LoraConfig
    from peft.tuners.lora import LoraModel

    student.requires_grad_(requires_grad=False)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        config = LoraConfig(r=rank, lora_alpha=2 * rank, target_modules="all-linear")
        adapters = LoraModel(find_stack(student).model, config, "default")
    try:
        yield AdapterTrainer
    finally:
        adapters.merge_and_unload()
        student.requires_grad_(requires_grad=True)


class AdapterTrainer(SentenceTransformerTrainer):
    """A trainer whose checkpoints hold only what learns, so that they are small and load into the adapted model."""

    def _save(self, output_dir: str | None = None, state_dict: Any = None) -> None:  # noqa: ARG002
        folder = Path(str(output_dir or self.args.output_dir))
        folder.mkdir(parents=True, exist_ok=True)
        learning = {name: weight for name, weight in self.model.named_parameters() if weight.requires_grad}
        save_file({name: weight.detach().contiguous() for name, weight in learning.items()}, folder / CHECKPOINT)

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: Any = None) -> None:
        (model or self.model).load_state_dict(load_file(Path(resume_from_checkpoint) / CHECKPOINT), strict=False)
