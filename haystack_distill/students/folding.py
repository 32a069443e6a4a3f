"""
Folding: the layers that are dropped below the first kept one leave what they do to a token in its embedding.

A student that starts at layer k gets, instead of the raw token embeddings, the mean hidden state with which each token
enters layer k of the teacher: averaged over its occurrences in a sample of texts, or, where it has none, alone between
the special tokens. What the dropped layers do to a token *whatever its context* is kept; what they do because of the
context is lost. Folding costs nothing at query time.
"""

import copy
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from sentence_transformers import SentenceTransformer
from torch import Tensor, nn

from haystack_distill.files.precision import bf16_where_fast
from haystack_distill.students.bi_encoder import BiEncoder
from haystack_distill.students.cutting import LayerStack, find_stack

BATCH = 64


class _EntryReached(Exception):  # noqa: N818 - control flow, not an error: the layers above need not run
    pass


@dataclass(frozen=True)
class TokenStates:
    """
    How each token enters a layer of the teacher.

    :param states: `[vocabulary, width]`; rows of tokens that were not asked for are zero.
    :param seen: `[vocabulary]`: how often the token occurred in the texts.
    """

    states: Tensor
    seen: Tensor


@torch.no_grad()
def token_states(teacher: BiEncoder, layer: int, texts: list[str], tokens: set[int] | None = None) -> TokenStates:
    """
    Average the hidden states with which tokens enter a layer, computed in bfloat16 where the device is fast at it.

    :param layer: The number of the layer; the depth of the encoder stands for what leaves its last layer.
    :param tokens: The tokens of interest; None is the whole vocabulary.
    """
    stack = find_stack(teacher.model)
    vocabulary = stack.model.get_input_embeddings().num_embeddings
    width = stack.model.config.hidden_size
    device = teacher.model.device
    sums, seen = torch.zeros(vocabulary, width, device=device), torch.zeros(vocabulary, device=device)
    by_length = sorted(texts, key=len)
    for start in range(0, len(texts), BATCH):
        batch = teacher.model.preprocess(by_length[start : start + BATCH])
        ids, mask = batch["input_ids"].to(device), batch["attention_mask"].to(device)
        with bf16_where_fast(device):
            states = _entering(stack, layer, ids, mask)[mask.bool()].float()
        sums.index_add_(0, ids[mask.bool()], states)
        seen.index_add_(0, ids[mask.bool()], torch.ones(len(states), device=device))
    wanted = range(vocabulary) if tokens is None else sorted(tokens)
    alone = [token for token in wanted if seen[token] == 0]
    for ids, position in single_tokens(teacher.model, alone):
        with bf16_where_fast(device):
            sums[ids[:, position]] = _entering(stack, layer, ids, torch.ones_like(ids))[:, position].float()
    return TokenStates(sums / seen.clamp(min=1)[:, None], seen)


def single_tokens(encoder: SentenceTransformer, tokens: list[int]) -> Iterator[tuple[Tensor, int]]:
    """
    Put each token alone between the special tokens that the tokenizer puts around a text.

    :returns: Batches of ids, `[batch, length]`, and the position of the token in them.
    """
    frame = encoder.tokenizer("a", return_special_tokens_mask=True)
    position = frame["special_tokens_mask"].index(0)
    suffix = [
        token
        for token, special in zip(frame["input_ids"][position:], frame["special_tokens_mask"][position:], strict=True)
        if special
    ]
    around = frame["input_ids"][:position], suffix
    for start in range(0, len(tokens), 8 * BATCH):
        rows = [[*around[0], token, *around[1]] for token in tokens[start : start + 8 * BATCH]]
        yield torch.tensor(rows, device=encoder.device), position


def can_fold(stack: LayerStack) -> bool:
    """
    Whether embeddings can be replaced by hidden states in this architecture.

    They can if they are like BERT's (a sum under a LayerNorm) or enter the stack as they are.
    """
    embeddings = getattr(stack.model, "embeddings", None)
    return hasattr(embeddings, "LayerNorm") or hasattr(stack.model, "embed_tokens")


def fold(student: SentenceTransformer, teacher: BiEncoder, layer: int, states: Tensor) -> None:
    """
    Replace the student's token embeddings by the states with which tokens enter its first layer in the teacher.

    Under a LayerNorm the states must come out of it unchanged: it takes over scale and shift of the norm at the end of
    the dropped layer below, and the states are stored with both undone. Position and segment embeddings start at zero,
    since the states carry what they add on average.

    :param teacher: The encoder that it was cut from.
    :param layer: The number that the student's first layer has in the teacher, above 0.
    :param states: `[vocabulary, width]`, from `token_states`.
    """
    stack, original = find_stack(student), find_stack(teacher.model)
    embeddings: Any = getattr(stack.model, "embeddings", None)
    if not hasattr(embeddings, "LayerNorm"):
        stack.model.get_input_embeddings().weight.data.copy_(states)
        return
    below = [module for module in original.layers[layer - 1].modules() if isinstance(module, nn.LayerNorm)][-1]
    embeddings.LayerNorm = copy.deepcopy(below)
    scale, shift = below.weight.detach(), below.bias.detach()
    for name, module in embeddings.named_children():
        if isinstance(module, nn.Embedding):
            module.weight.data.zero_()
            if name == "word_embeddings":
                module.weight.data.copy_((states.to(scale.device) - shift) / scale)


def _entering(stack: LayerStack, layer: int, ids: Tensor, mask: Tensor) -> Tensor:
    """The hidden states that enter a layer. `[batch, length, width]`."""
    if layer == len(stack):
        return stack.model(input_ids=ids, attention_mask=mask).last_hidden_state
    caught: list[Tensor] = []

    def catch(_: nn.Module, arguments: tuple[Tensor, ...], named: dict[str, Tensor]) -> None:
        caught.append(arguments[0] if arguments else named["hidden_states"])
        raise _EntryReached

    handle = stack.layers[layer].register_forward_pre_hook(catch, with_kwargs=True)
    try:
        stack.model(input_ids=ids, attention_mask=mask)
    except _EntryReached:
        pass
    finally:
        handle.remove()
    return caught[0]
