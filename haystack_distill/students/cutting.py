"""Cutting layers out of a sentence-transformers encoder."""

import copy
from dataclasses import dataclass
from typing import Any

from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer.modules import Dense, Normalize
from torch import eye, nn

from haystack_distill.students.bi_encoder import BiEncoder

KALE_LAYERS = {
    12: {9: (0, 1, 3, 4, 5, 6, 7, 9, 11), 6: (0, 2, 4, 6, 8, 11), 3: (0, 5, 11), 2: (0, 11), 1: (0,)},
    6: {3: (0, 2, 5), 2: (0, 5), 1: (0,)},
}
"""The layers that the authors of KALE keep, by the depth of the encoder and the number of layers kept."""


@dataclass(frozen=True)
class LayerStack:
    """
    Where the layers of a transformer are.

    :param model: The transformer of `transformers`.
    :param parent: The module that holds the list of layers.
    :param name: The name of the list in `parent`.
    """

    model: Any
    parent: nn.Module
    name: str

    @property
    def layers(self) -> nn.ModuleList:
        """The layers."""
        return getattr(self.parent, self.name)

    def __len__(self) -> int:
        """The number of layers."""
        return len(self.layers)


def find_stack(encoder: SentenceTransformer) -> LayerStack:
    """
    Find the layers of an encoder: the one list of modules that is as long as its configuration says.

    :raises ValueError: If there is no such list, as in a token table, or more than one, as in an encoder-decoder.
    """
    model = getattr(encoder[0], "auto_model", None)
    depth = getattr(getattr(model, "config", None), "num_hidden_layers", None)
    stacks = []
    for module in model.modules() if isinstance(model, nn.Module) else []:
        stacks += [
            LayerStack(model, module, name)
            for name, child in module.named_children()
            if isinstance(child, nn.ModuleList) and len(child) == depth and depth
        ]
    if len(stacks) != 1:
        what = "no list of layers" if not stacks else f"{len(stacks)} lists of layers"
        msg = (
            f"This encoder can't be cut: {what} found in {type(model or encoder[0]).__name__}. Encoders with one stack "
            "of layers can be cut (BERT, MPNet, RoBERTa, XLM-R, DistilBERT, ModernBERT, Qwen3)."
        )
        raise ValueError(msg)
    return stacks[0]


def check_depth(layers: int, depth: int) -> None:
    """
    Make sure that an encoder of this depth can keep so many layers; 0 stands for a token table.

    :raises ValueError: If it can't.
    """
    if not 0 <= layers <= depth:
        msg = f"layers={layers} does not fit: the encoder has {depth} layers (0 asks for a token table)."
        raise ValueError(msg)


def check_keep(keep: list[int] | tuple[int, ...], depth: int) -> tuple[int, ...]:
    """
    Put the numbers of the layers to keep, from 0, in ascending order.

    :raises ValueError: If a number is out of range or there twice.
    """
    ordered = tuple(sorted(int(number) for number in keep))
    if not ordered or len(set(ordered)) < len(ordered) or ordered[0] < 0 or ordered[-1] >= depth:
        msg = f"keep={list(keep)} does not fit: the encoder has the layers 0 to {depth - 1}, each kept once at most."
        raise ValueError(msg)
    return ordered


def kale_layers(depth: int, layers: int) -> tuple[int, ...]:
    """
    Look up the layers that the KALE paper keeps (section 4, and the authors' code).

    :raises ValueError: If the paper has no map for this.
    """
    maps = KALE_LAYERS.get(depth, {})
    if layers not in maps:
        known = "; ".join(f"{total} to {', '.join(map(str, kept))}" for total, kept in KALE_LAYERS.items())
        msg = f'keep="kale" has no map from {depth} to {layers} layers (it has {known}): name the layers instead.'
        raise ValueError(msg)
    return maps[layers]


def cut(teacher: BiEncoder, keep: tuple[int, ...]) -> SentenceTransformer:
    """
    Copy the teacher's query encoder with some of its layers only.

    The copy makes vectors of the index by itself: the prefix is its default prompt, and truncation and normalisation
    that an embedder was configured with become modules of it. The teacher is left as it is.

    :param keep: The numbers of the layers that stay, ascending.
    :returns: The student, untrained, in evaluation mode and float32, in which Adam's small steps are not lost.
    :raises ValueError: If the encoder can't be cut at these layers.
    """
    stack = find_stack(teacher.model)
    keep = check_keep(keep, len(stack))
    if _first_layer_differs(stack) and keep[0] != 0:
        msg = f"The first layer of {type(stack.model).__name__} has no norm of its own and must stay: keep layer 0."
        raise ValueError(msg)
    all_layers = stack.layers
    try:  # the copy must not hold the layers that are dropped, not even for a moment
        setattr(stack.parent, stack.name, nn.ModuleList([all_layers[number] for number in keep]))
        student = copy.deepcopy(teacher.model).float()
    finally:
        setattr(stack.parent, stack.name, all_layers)
    transformer: Any = student[0]
    transformer.auto_model.config.num_hidden_layers = len(keep)
    _renumber(find_stack(student), keep, len(all_layers))
    finish(student, teacher)
    return student


def _renumber(stack: LayerStack, keep: tuple[int, ...], depth: int) -> None:
    """Make the configuration and the layers agree on their new numbers."""
    config: Any = stack.model.config
    if len(getattr(config, "layer_types", None) or []) == depth:  # ModernBERT, Qwen3: attention differs by layer
        config.layer_types = [config.layer_types[number] for number in keep]
    for number, layer in enumerate(stack.layers):
        for module in layer.modules():
            if hasattr(module, "layer_idx"):
                module.layer_idx = number  # type: ignore[assignment]


def _first_layer_differs(stack: LayerStack) -> bool:
    """ModernBERT's first layer has an identity where the others have a norm, and is rebuilt like that on loading."""
    kinds = [{name: type(module) for name, module in layer.named_modules()} for layer in stack.layers]
    return len(kinds) > 1 and kinds[0] != kinds[1]


def finish(student: SentenceTransformer, encoder: BiEncoder) -> None:
    """Build what an encoder was configured with, as the embedder of an index is, into a copy of its model."""
    width = student.get_embedding_dimension() or encoder.dim
    if width != encoder.dim:
        first_values = Dense(width, encoder.dim, bias=False, activation_function=nn.Identity())
        first_values.linear.weight.data = eye(encoder.dim, width)
        student.append(first_values)
    if encoder.normalize and not isinstance(student[-1], Normalize):
        student.append(Normalize())
    student.prompts = {"query": encoder.query_prefix} if encoder.query_prefix else {}
    student.default_prompt_name = "query" if encoder.query_prefix else None
    student.truncate_dim = None
    student.eval()
