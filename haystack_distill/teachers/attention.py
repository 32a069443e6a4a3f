"""
Attention read out of a forward pass that stays on the fast kernel.

`output_attentions=True` makes a model compute and keep every attention matrix: `layers * heads * tokens^2` numbers. A
teacher needs a few rows of them: those of the question's or answer's tokens. So the model runs with an attention
function of our own, registered with transformers' `AttentionInterface`, that calls SDPA and, while a `Capture` is
active, computes the needed rows beside it. Grouped queries, sliding windows and position biases come with what
transformers hands to every attention function. Soft-capped scores (Gemma 2) and attention sinks (GPT-OSS), which SDPA
can't compute, are computed here in blocks of rows, in memory that grows with the length and not its square.
"""

from contextlib import suppress
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AttentionInterface, AttentionMaskInterface, PreTrainedModel
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

NAME = "haystack_distill"
"""Under which the attention function is registered with transformers."""

KINDS = ("scores", "attention", "value_norm")
ATTENTION_ROWS = 32
"""Rows of attention that exist at the same time."""


class _LastLayerRead(Exception):  # noqa: N818 - no error: the rest of the forward pass is not needed
    pass


@dataclass
class Capture:
    """
    What is to be read out of one forward pass, and what was read.

    :param rows: `[batch, rows]`: positions of the attending tokens, counted within the tokens of this forward pass.
        A row that is there to fill up is -1. None reads nothing.
    :param kind: `scores` are before the softmax, NaN where a row does not see a token (a sliding window); `attention`
        after it; `value_norm` is attention times the length of the attended token's value vector.
    :param layers: Which layers to read, by number; None for all.
    :param modules: The attention modules to read -> their layer, where a model has several kinds; None for all.
    :param last: The last layer that is needed: the forward pass stops there. None runs it to its end.
    :param found: Layer -> `[batch, heads, keys]`, float32, the mean over the rows.
    """

    rows: Tensor | None
    kind: str = "attention"
    layers: frozenset[int] | None = None
    modules: dict[nn.Module, int] | None = None
    last: int | None = None
    found: dict[int, Tensor] = field(default_factory=dict)

    def stacked(self) -> Tensor:
        """All layers that were read, in their order: `[batch, layers, heads, keys]`."""
        return torch.stack([self.found[layer] for layer in sorted(self.found)], dim=1)

    def layer_of(self, module: nn.Module) -> int | None:
        """The number of the layer that an attention module belongs to; None if it is not to be read."""
        return getattr(module, "layer_idx", None) if self.modules is None else self.modules.get(module)


_active: ContextVar[Capture | None] = ContextVar("capture", default=None)


def read_attention(model: PreTrainedModel, capture: Capture, **inputs: Any) -> Capture:
    """Run a model and read attention on the way."""
    token = _active.set(capture)
    try:
        with torch.inference_mode(), suppress(_LastLayerRead):
            model(**inputs)
    finally:
        _active.reset(token)
    return capture


def make_readable(model: PreTrainedModel) -> PreTrainedModel:
    """
    Let a model run with the attention function of this module; it computes what it computed before.

    :raises ValueError: If the model does not get its attention function from transformers' `AttentionInterface`.
    """
    if not model._can_set_attn_implementation():
        msg = (
            f"The attention of {type(model).__name__} can't be read: it does not use transformers' AttentionInterface. "
            "Use a likelihood signal (question, pdist) with this model, or a reader of the Llama, Qwen, Gemma, "
            "Mistral, T5 or BART families."
        )
        raise ValueError(msg)
    model.set_attn_implementation(NAME)
    return model


def _attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float | None = None,
    **kwargs: Any,
) -> tuple[Tensor, None]:
    """The registered function: `query` is `[batch, heads, tokens, dim]`, `key` and `value` have the grouped heads."""
    scale = query.shape[-1] ** -0.5 if scaling is None else scaling
    causal = kwargs.get("is_causal")
    causal = getattr(module, "is_causal", True) if causal is None else causal
    inputs = _Inputs(
        query,
        key,
        value,
        scale,
        attention_mask,
        bool(causal) and attention_mask is None and query.shape[2] > 1,
        kwargs.get("position_bias"),
        kwargs.get("softcap"),
        kwargs.get("s_aux"),
    )
    capture = _active.get()
    if capture is not None:
        layer = capture.layer_of(module)
        if layer is not None:
            if capture.rows is not None and (capture.layers is None or layer in capture.layers):
                capture.found[layer] = _mean_over_rows(inputs, capture.rows, capture.kind)
            if layer == capture.last:
                raise _LastLayerRead
    if inputs.softcap is not None or inputs.sinks is not None:
        return _in_blocks(inputs), None
    return sdpa_attention_forward(module, query, key, value, attention_mask, scaling=scaling, **kwargs)


@dataclass(frozen=True)
class _Inputs:
    query: Tensor
    key: Tensor
    value: Tensor
    scale: float
    mask: Tensor | None
    causal: bool
    bias: Tensor | None
    softcap: float | None
    sinks: Tensor | None

    def scores(self, rows: Tensor) -> Tensor:
        """Unmasked scores of some rows. `rows` is `[batch, rows]`; returns `[batch, heads, rows, keys]`, float32."""
        query = _take_rows(self.query, rows).float()
        batch, heads, count, dim = query.shape
        groups = self.key.shape[1]
        grouped = query.reshape(batch, groups, heads // groups * count, dim)
        scores = (grouped @ self.key.float().transpose(2, 3)).reshape(batch, heads, count, -1) * self.scale
        if self.bias is not None:
            scores = scores + _take_rows(self.bias, rows).float()
        if self.softcap is not None:
            scores = torch.tanh(scores / self.softcap) * self.softcap
        return scores

    def masked(self, rows: Tensor) -> Tensor:
        """The same, -inf where a row does not see a key."""
        scores = self.scores(rows)
        if self.mask is not None:
            mask = _take_rows(self.mask, rows)
            scores = scores.masked_fill(~mask, -torch.inf) if mask.dtype == torch.bool else scores + mask.float()
        elif self.causal:
            keys = torch.arange(scores.shape[-1], device=scores.device)
            seen = rows + scores.shape[-1] - self.query.shape[2]
            scores = scores.masked_fill(keys > seen[:, None, :, None], -torch.inf)
        return scores

    def weights(self, rows: Tensor) -> Tensor:
        """Attention of some rows, `[batch, heads, rows, keys]`; with a sink they sum to less than 1."""
        scores = self.masked(rows)
        if self.sinks is None:
            # Padding before a prompt sees no key: its rows, and what later layers make of them, would be NaN.
            return scores.masked_fill((scores == -torch.inf).all(-1, keepdim=True), 0.0).softmax(-1)
        sink = self.sinks.float().reshape(1, -1, 1, 1).expand(*scores.shape[:3], 1)
        return torch.cat([scores, sink], dim=-1).softmax(-1)[..., :-1]


def _take_rows(tensor: Tensor, rows: Tensor) -> Tensor:
    """Take rows `[batch, rows]` of `[batch or 1, heads or 1, tokens, width]`: `[batch, heads or 1, rows, width]`."""
    batch = torch.arange(rows.shape[0], device=rows.device) if tensor.shape[0] > 1 else torch.zeros_like(rows[:, 0])
    return tensor[batch[:, None], :, rows].transpose(1, 2)


def _mean_over_rows(inputs: _Inputs, rows: Tensor, kind: str) -> Tensor:
    """`[batch, heads, keys]`, in blocks of rows."""
    total = torch.zeros((), device=rows.device)
    for block in rows.split(ATTENTION_ROWS, dim=1):
        real = (block >= 0)[:, None, :, None]
        if kind == "scores":
            scores = inputs.masked(block.clamp(min=0))
            computed = scores.masked_fill(scores < torch.finfo(torch.bfloat16).min / 2, torch.nan)
        else:
            computed = inputs.weights(block.clamp(min=0))
        total = total + torch.where(real, computed, 0.0).sum(2)
    mean = total / (rows >= 0).sum(1)[:, None, None]
    if kind == "value_norm":
        norms = inputs.value.float().norm(dim=-1)
        mean = mean * norms.repeat_interleave(mean.shape[1] // norms.shape[1], dim=1)
    return mean


def _in_blocks(inputs: _Inputs) -> Tensor:
    """The whole attention, for what SDPA can't compute: `[batch, tokens, heads, dim]`."""
    batch, heads, tokens, _ = inputs.query.shape
    repeated = inputs.value.repeat_interleave(heads // inputs.value.shape[1], dim=1)
    blocks = []
    for rows in torch.arange(tokens, device=inputs.query.device).split(4 * ATTENTION_ROWS):
        weights = inputs.weights(rows.expand(batch, -1)).to(repeated.dtype)
        blocks.append(weights @ repeated)
    return torch.cat(blocks, dim=2).transpose(1, 2).contiguous()


AttentionInterface.register(NAME, _attention)
AttentionMaskInterface.register(NAME, sdpa_mask)
