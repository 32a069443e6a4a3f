"""
Fusion-in-Decoder (arXiv 2007.01282): each passage is encoded alone with the question, one decoder reads all of them.

Any encoder-decoder of the T5 and BART families of transformers. With one passage it is an ordinary reader, so the same
class gives the likelihoods that take a passage alone. The decoder's text begins and ends as in transformers' own
`labels`: T5 reads `start, answer, end`, BART `start, begin, answer, end`, where only answer and end are asked for.
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

from haystack_distill.teachers.attention import Capture, make_readable, read_attention
from haystack_distill.teachers.causal import by_length, log_likelihood, only_rows, padded
from haystack_distill.teachers.prompt_encoding import MAX_PASSAGE_TOKENS, Encoded, PromptEncoder
from haystack_distill.teachers.prompts import Prompt, UnscorableError
from haystack_distill.teachers.signals import FUSION

CROSS_ATTENTION = ("EncDecAttention", "encoder_attn")
"""What the T5 and BART families call the attention of the decoder to the encoder."""


@dataclass(frozen=True)
class Fused:
    """What encoder and decoder read; `target` are the tokens asked of the decoder, none for its first step alone."""

    inputs: tuple[Encoded, ...]
    target: tuple[int, ...]
    cut: frozenset[int]

    def places(self) -> list[np.ndarray]:
        """Where the tokens of each passage's input are when all inputs follow each other: the question's too."""
        lengths = [len(encoded.ids) for encoded in self.inputs]
        return [np.arange(end - length, end) for end, length in zip(np.cumsum(lengths), lengths, strict=True)]


class FusionReader:
    """
    An encoder-decoder of transformers as a Fusion-in-Decoder reader.

    :param batch_size: Passages an encoder pass, prompts a decoder pass.
    :raises ValueError: If it is not known how the decoder's text begins and ends.
    """

    kind: ClassVar[str] = FUSION

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
        self.opening, self.end = decoder_frame(model, tokenizer)
        self._encoder = PromptEncoder(tokenizer, self.window, max_passage_tokens)
        self._cross = {
            module: number
            for number, module in enumerate(
                module for name, module in model.named_modules() if name.rpartition(".")[2] in CROSS_ATTENTION
            )
        }
        self._lock = RLock()

    @property
    def layers(self) -> int:
        """How many layers of the decoder can be read."""
        return len(self._cross)

    def readable(self) -> None:
        """Prepare the model for reading its attention; a ValueError if it is not of a known family."""
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
        ended: bool = False,
    ) -> Fused:
        """Fill and tokenise one encoder input a passage, and the decoder's text. See `PromptEncoder.encode`."""
        each = [[passage] for passage in passages] or [[]]
        inputs = tuple(self._encoder.encode(prompt, question, alone) for alone in each)
        cut = frozenset(number for number, encoded in enumerate(inputs) if encoded.cut)
        if target is None:
            return Fused(inputs, (), cut)
        text = self._encoder.plain(target.strip())
        tokens = self.tokenizer(text_target=text, add_special_tokens=False, verbose=False)["input_ids"]
        limit = self.max_passage_tokens if target_is_passage else self.window
        if not tokens or (len(tokens) > limit and not target_is_passage):
            what = "has no token that the reader knows" if not tokens else f"is longer than {limit} tokens"
            msg = f"The text {target[:60]!r}, whose likelihood is asked for, {what}."
            raise UnscorableError(msg)
        if len(tokens) > limit:
            tokens, cut = tokens[:limit], frozenset({0})
        return Fused(inputs, (*tokens, *([self.end] if ended and self.end is not None else [])), cut)

    def log_likelihoods(self, prompts: Sequence[Fused]) -> Iterator[tuple[int, np.ndarray]]:
        """Log-likelihoods of target tokens. Encoder inputs that several prompts share are encoded once."""
        with self._lock, torch.inference_mode():
            states = self._encoded(prompts)
            lengths = [range(sum(len(encoded.ids) for encoded in prompt.inputs)) for prompt in prompts]
            decoded = [
                (numbers, self._decode([prompts[number] for number in numbers], states))
                for numbers in by_length(lengths, range(len(prompts)), self.batch_size)
            ]
        for numbers, values in decoded:
            yield from zip(numbers, values, strict=True)

    def attention(self, prompts: Sequence[Fused], rows: tuple[str, int], kind: str) -> Iterator[tuple[int, np.ndarray]]:
        """
        Cross-attention from the decoder to all encoder inputs of each prompt.

        :param rows: `("last", 0)` is the step that predicts the first token of an answer, `("target", 0)` the steps
            that predict the target.
        :param kind: See `Capture`.
        :returns: The number of each prompt, and `[layers, heads, encoder tokens]`, the mean over the steps.
        """
        self.readable()
        read = []
        with self._lock, torch.inference_mode():
            states = self._encoded(prompts)
            for prompt in prompts:
                inputs = self._decoder_inputs([prompt], states)
                steps = len(prompt.target) if rows[0] == "target" else 1
                positions = torch.arange(steps, device=self.model.device)[None] + len(self.opening) - 1
                capture = Capture(positions, kind, modules=self._cross, last=self.layers - 1)
                read.append(read_attention(self.model, capture, **inputs).stacked()[0].cpu().numpy())
        return iter(enumerate(read))

    def _encoded(self, prompts: Sequence[Fused]) -> dict[tuple[int, ...], Tensor]:
        """Encoder input -> `[tokens, dim]`, each once."""
        unique = list(dict.fromkeys(tuple(encoded.ids) for prompt in prompts for encoded in prompt.inputs))
        states: dict[tuple[int, ...], Tensor] = {}
        encoder: nn.Module = self.model.get_encoder()
        for numbers in by_length(unique, range(len(unique)), self.batch_size):
            ids = [unique[number] for number in numbers]
            inputs, mask = self._padded(ids)
            hidden = encoder(input_ids=inputs, attention_mask=mask).last_hidden_state
            states |= {tokens: row[: len(tokens)] for tokens, row in zip(ids, hidden, strict=True)}
        return states

    def _decoder_inputs(self, prompts: Sequence[Fused], states: dict[tuple[int, ...], Tensor]) -> dict[str, Any]:
        joined = [torch.cat([states[tuple(encoded.ids)] for encoded in prompt.inputs]) for prompt in prompts]
        decoder, _ = self._padded([(*self.opening, *prompt.target[:-1]) for prompt in prompts])
        return {**self.fuse(joined), "decoder_input_ids": decoder, "use_cache": False}

    @staticmethod
    def fuse(joined: Sequence[Tensor]) -> dict[str, Any]:
        """The decoder's inputs, of each question the encoder's states `[tokens, dim]` of all its passages in a row."""
        hidden = nn.utils.rnn.pad_sequence(list(joined), batch_first=True)
        lengths = torch.tensor([len(states) for states in joined], device=hidden.device)
        mask = torch.arange(hidden.shape[1], device=hidden.device) < lengths[:, None]
        return {"encoder_outputs": BaseModelOutput(last_hidden_state=hidden), "attention_mask": mask.long()}

    def _decode(self, prompts: Sequence[Fused], states: dict[tuple[int, ...], Tensor]) -> list[np.ndarray]:
        counts = [len(prompt.target) for prompt in prompts]
        rows = torch.repeat_interleave(torch.arange(len(prompts)), torch.tensor(counts))
        columns = torch.cat([torch.arange(count) for count in counts]) + len(self.opening) - 1
        targets = torch.tensor([token for prompt in prompts for token in prompt.target])
        with only_rows(self.model.get_output_embeddings(), rows, columns):
            logits = self.model(**self._decoder_inputs(prompts, states)).logits[0]
        values = log_likelihood(logits, targets.to(logits.device)).cpu().numpy()
        return np.split(values, np.cumsum(counts)[:-1])

    def _padded(self, rows: Sequence[Sequence[int]]) -> tuple[Tensor, Tensor]:
        return padded(rows, self.model.config.pad_token_id or 0, self.model.device)


def decoder_frame(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> tuple[tuple[int, ...], int | None]:
    """
    What the decoder reads before an answer, and the token that ends one.

    BART begins each text with a token that is always the same, since it was trained so: the first token of an answer is
    the second that it decodes. Which token that is, tokenizer and generation config say.

    :raises ValueError: If they don't say, or the text has another frame than in the T5 and BART families.
    """
    name = type(model).__name__
    start = model.generation_config.decoder_start_token_id
    start = model.config.decoder_start_token_id if start is None else start
    if start is None:
        msg = f"{name} names no decoder_start_token_id: set it in the model's config."
        raise ValueError(msg)
    written = tokenizer(text_target="a", return_special_tokens_mask=True)
    special = written["special_tokens_mask"]
    first, last = special.index(0), len(special) - special[::-1].index(0)
    before, after = written["input_ids"][:first], written["input_ids"][last:]
    forced = model.generation_config.forced_bos_token_id
    begin = before if forced is None else [forced]
    if before not in ([], begin) or len(begin) > 1 or after not in ([], [tokenizer.eos_token_id]):
        msg = (
            f"How the decoder of {name} begins and ends a text is not known: its tokenizer writes {before} before and "
            f"{after} after it, and the model forces {forced} at its beginning. Take a reader of the T5 or BART family."
        )
        raise ValueError(msg)
    return (int(start), *begin), tokenizer.eos_token_id
