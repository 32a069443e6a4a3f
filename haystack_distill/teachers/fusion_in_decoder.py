# SPDX-FileCopyrightText: 2026-present haystack-distill contributors
#
# SPDX-License-Identifier: Apache-2.0

"""
Fusion-in-Decoder (arXiv 2007.01282): each passage is encoded alone with the question, one decoder reads all of them.

Any encoder-decoder of the T5 and BART families of transformers. With one passage it is an ordinary reader, so the same
class gives the likelihoods that take a passage alone.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from threading import RLock
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor, nn
from transformers import PreTrainedModel, PreTrainedTokenizerBase
from transformers.modeling_outputs import BaseModelOutput

from haystack_distill.teachers import prompts as default
from haystack_distill.teachers.attention import Capture, make_readable, read_attention
from haystack_distill.teachers.causal import by_length, log_likelihood, only_rows
from haystack_distill.teachers.prompts import MAX_PASSAGE_TOKENS, Encoded, Encoder, Prompt, UnscorableError

CROSS_ATTENTION = ("EncDecAttention", "encoder_attn")
"""What the T5 and BART families call the attention of the decoder to the encoder."""


@dataclass(frozen=True)
class Fused:
    """
    What encoder and decoder read.

    :param inputs: One encoder input a passage.
    :param target: The decoder's tokens, ending with the model's end token; none where only the first step is wanted.
    :param cut: Numbers of the passages that were cut.
    """

    inputs: tuple[Encoded, ...]
    target: tuple[int, ...]
    cut: frozenset[int]

    def places(self) -> list[np.ndarray]:
        """Where the tokens of each passage's input are when all inputs follow each other: the question's too."""
        ends = np.cumsum([len(one.ids) for one in self.inputs])
        return [np.arange(end - len(one.ids), end) for end, one in zip(ends, self.inputs, strict=True)]


class FusionReader:
    """
    An encoder-decoder of transformers as a Fusion-in-Decoder reader.

    :param model: The model.
    :param tokenizer: Its fast tokenizer.
    :param batch_size: Passages an encoder pass, prompts a decoder pass.
    :param max_passage_tokens: Longer passages are cut.
    """

    prompts: ClassVar[dict[str, Prompt]] = {
        **dict.fromkeys(("pdist", "emdr2", "loop", "dkrr", "adist"), default.FUSION),
        "question": default.FUSION_QUESTION,
        "response": default.RESPONSE,
        "mi": default.RESPONSE,
    }

    def __init__(
        self,
        model: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase,
        *,
        batch_size: int = 8,
        max_passage_tokens: int = MAX_PASSAGE_TOKENS,
    ) -> None:
        self.model = model.eval()
        self.tokenizer = tokenizer
        self.batch_size = batch_size
        self.max_passage_tokens = max_passage_tokens
        # T5's positions are relative: it has no window of its own.
        self.window: int = getattr(model.config, "max_position_embeddings", None) or 4096
        self._encoder = Encoder(tokenizer, self.window, max_passage_tokens)
        self._cross = {
            module: number
            for number, module in enumerate(
                module for name, module in model.named_modules() if name.rpartition(".")[2] in CROSS_ATTENTION
            )
        }
        self._lock = RLock()

    @property
    def layers(self) -> int:
        """Of the decoder."""
        return len(self._cross)

    def readable(self) -> None:
        """
        Prepare the model for reading its attention.

        :raises ValueError: If it is not of a known family.
        """
        if not self._cross:
            msg = (
                f"The cross-attention of {type(self.model).__name__} is not known: attention is read out of the T5 and "
                "BART families. Use a likelihood signal (pdist, question) with this model."
            )
            raise ValueError(msg)
        if self.model.config._attn_implementation != "haystack_distill":
            make_readable(self.model)

    def encode(
        self,
        prompt: Prompt,
        question: str | None,
        passages: list[str],
        target: str | None = None,
        *,
        target_is_passage: bool = False,
    ) -> Fused:
        """
        Fill and tokenise one encoder input a passage, and the decoder's text.

        :param prompt: With a place for one passage.
        :param question: The question, or the dialogue so far; None leaves its place empty.
        :param passages: The passages; none where the prompt has no place for one.
        :param target: What the decoder is asked the likelihood of.
        :param target_is_passage: Whether the target may be cut.
        :returns: Both.
        :raises UnscorableError: If a part has no tokens or does not fit.
        """
        each = [[passage] for passage in passages] or [[]]
        inputs = tuple(self._encoder.encode(prompt, question, own) for own in each)
        cut = frozenset(number for number, one in enumerate(inputs) if one.cut)
        if target is None:
            return Fused(inputs, (), cut)
        tokens = self.tokenizer(text_target=target.strip(), add_special_tokens=False, verbose=False)["input_ids"]
        limit = self.max_passage_tokens if target_is_passage else self.window
        if not tokens or (len(tokens) > limit and not target_is_passage):
            what = "has no token that the reader knows" if not tokens else f"is longer than {limit} tokens"
            msg = f"The text {target[:60]!r}, whose likelihood is asked for, {what}."
            raise UnscorableError(msg)
        if len(tokens) > limit:
            tokens, cut = tokens[:limit], frozenset({0})
        return Fused(inputs, tuple(tokens), cut)

    def log_likelihoods(self, prompts: Sequence[Fused]) -> Iterator[tuple[int, np.ndarray]]:
        """
        Log-likelihoods of target tokens. Encoder inputs that several prompts share are encoded once.

        :param prompts: Prompts with a target.
        :returns: The number of each prompt, and its `[target tokens]`.
        """
        with self._lock, torch.inference_mode():
            states = self._encoded(prompts)
            lengths = [range(sum(len(one.ids) for one in prompt.inputs)) for prompt in prompts]
            decoded = [
                (numbers, self._decode([prompts[number] for number in numbers], states))
                for numbers in by_length(lengths, range(len(prompts)), self.batch_size)
            ]
        for numbers, values in decoded:
            yield from zip(numbers, values, strict=True)

    def attention(self, prompts: Sequence[Fused], rows: tuple[str, int], kind: str) -> Iterator[tuple[int, np.ndarray]]:
        """
        Cross-attention from the decoder to all encoder inputs of each prompt.

        :param prompts: The prompts.
        :param rows: `("last", 0)` is the first decoding step, `("target", 0)` the steps that predict the target.
        :param kind: See `Capture`.
        :returns: The number of each prompt, and `[layers, heads, encoder tokens]`, the mean over the steps.
        """
        self.readable()
        found = []
        with self._lock, torch.inference_mode():
            states = self._encoded(prompts)
            for prompt in prompts:
                inputs = self._decoder_inputs([prompt], states)
                steps = len(prompt.target) if rows[0] == "target" else 1
                positions = torch.arange(steps, device=self.model.device)[None]
                capture = Capture(positions, kind, modules=self._cross, last=self.layers - 1)
                found.append(read_attention(self.model, capture, **inputs).stacked()[0].cpu().numpy())
        return iter(enumerate(found))

    def _encoded(self, prompts: Sequence[Fused]) -> dict[tuple[int, ...], Tensor]:
        """Encoder input -> `[tokens, dim]`, each once."""
        unique = list(dict.fromkeys(tuple(one.ids) for prompt in prompts for one in prompt.inputs))
        states: dict[tuple[int, ...], Tensor] = {}
        encoder: nn.Module = self.model.get_encoder()
        for numbers in by_length(unique, range(len(unique)), self.batch_size):
            ids = [unique[number] for number in numbers]
            inputs, mask = self._padded(ids)
            hidden = encoder(input_ids=inputs, attention_mask=mask).last_hidden_state
            states |= {one: row[: len(one)] for one, row in zip(ids, hidden, strict=True)}
        return states

    def _decoder_inputs(self, prompts: Sequence[Fused], states: dict[tuple[int, ...], Tensor]) -> dict[str, Any]:
        joined = [torch.cat([states[tuple(one.ids)] for one in prompt.inputs]) for prompt in prompts]
        start = self.start_token
        decoder, _ = self._padded([(start, *prompt.target[:-1]) for prompt in prompts])
        return {**self.fuse(joined), "decoder_input_ids": decoder, "use_cache": False}

    @staticmethod
    def fuse(joined: Sequence[Tensor]) -> dict[str, Any]:
        """
        What the decoder reads of several questions.

        :param joined: For each question the encoder's states of all its passages, one after the other, `[tokens, dim]`.
        :returns: `encoder_outputs` and `attention_mask` for the model.
        """
        hidden = nn.utils.rnn.pad_sequence(list(joined), batch_first=True)
        lengths = torch.tensor([len(one) for one in joined], device=hidden.device)
        mask = torch.arange(hidden.shape[1], device=hidden.device) < lengths[:, None]
        return {"encoder_outputs": BaseModelOutput(last_hidden_state=hidden), "attention_mask": mask.long()}

    def _decode(self, prompts: Sequence[Fused], states: dict[tuple[int, ...], Tensor]) -> list[np.ndarray]:
        counts = [len(prompt.target) for prompt in prompts]
        rows = torch.repeat_interleave(torch.arange(len(prompts)), torch.tensor(counts))
        columns = torch.cat([torch.arange(count) for count in counts])
        targets = torch.tensor([token for prompt in prompts for token in prompt.target])
        with only_rows(self.model.get_output_embeddings(), rows, columns):
            logits = self.model(**self._decoder_inputs(prompts, states)).logits[0]
        values = log_likelihood(logits, targets.to(logits.device)).cpu().numpy()
        return np.split(values, np.cumsum(counts)[:-1])

    @property
    def start_token(self) -> int:
        """
        What the decoder begins with.

        :raises ValueError: If the model does not say.
        """
        start = self.model.generation_config.decoder_start_token_id
        start = self.model.config.decoder_start_token_id if start is None else start
        if start is None:
            msg = f"{type(self.model).__name__} names no decoder_start_token_id: set it in the model's config."
            raise ValueError(msg)
        return int(start)

    def _padded(self, rows: Sequence[Sequence[int]]) -> tuple[Tensor, Tensor]:
        longest = max(len(row) for row in rows)
        pad = self.model.config.pad_token_id or 0
        padded = torch.tensor([[*row, *[pad] * (longest - len(row))] for row in rows], device=self.model.device)
        lengths = torch.tensor([len(row) for row in rows], device=padded.device)
        return padded, (torch.arange(longest, device=padded.device) < lengths[:, None]).long()
