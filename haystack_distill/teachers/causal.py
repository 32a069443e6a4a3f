"""A decoder-only language model as a reader: log-likelihoods and attention of tokens, many prompts at a time."""

import inspect
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from threading import RLock
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor, nn
from transformers import DynamicCache, DynamicLayer, PreTrainedModel, PreTrainedTokenizerBase

from haystack_distill.teachers.attention import Capture, make_readable, read_attention
from haystack_distill.teachers.prompt_encoding import MAX_PASSAGE_TOKENS, Encoded, PromptEncoder
from haystack_distill.teachers.signals import CAUSAL

SHARED = 16
"""A beginning that all prompts of a batch share is read once if it has at least this many tokens."""

POOL = 8
"""Batches of prompts that share nothing are cut from a pool of this many: their rows should be done early."""

MOST_ENDINGS = 64
"""Prompts a forward pass, where they differ at their end alone."""

VOCABULARY_ROWS = 256
"""Tokens whose likelihoods over the whole vocabulary exist at the same time."""


class CausalReader:
    """
    A causal language model of transformers.

    Prompts are padded at their end, which no earlier token sees, so a batch needs no mask and gives what each prompt
    gives alone.
    """

    kind: ClassVar[str] = CAUSAL

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
        self.config = model.config.get_text_config(decoder=True)
        self.layers: int = self.config.num_hidden_layers
        window = getattr(self.config, "max_position_embeddings", None) or getattr(self.config, "n_positions", None)
        self.window: int = window or 2048
        self.encode = PromptEncoder(tokenizer, self.window, max_passage_tokens).encode
        kinds = set(getattr(self.config, "layer_types", None) or ["full_attention"])
        # transformers 5.24 calls it so, and will no longer take the old name.
        self.cache_name = "cache" if "cache" in inspect.signature(model.forward).parameters else "past_key_values"
        self._lock = RLock()  # a hook of one call must not meet the forward pass of another
        self._caches = kinds <= {"full_attention", "sliding_attention"} and not getattr(model, "_is_stateful", False)

    def log_likelihoods(self, prompts: Sequence[Encoded]) -> Iterator[tuple[int, np.ndarray]]:
        """
        Log-likelihoods of the target tokens of prompts, each given all that stands before it.

        What prompts begin with in common, a passage that was found for several questions or a question before several
        passages, is read once: the more prompts at a time, the more there is of that.

        :returns: The number of each prompt, the first ones early, and its `[target tokens]`.
        """
        for numbers in self._batches(prompts):
            with self._lock:
                values = self._batch([prompts[number] for number in numbers])
            yield from zip(numbers, values, strict=True)

    def attention(
        self,
        prompts: Sequence[Encoded],
        rows: tuple[str, int],
        kind: str,
        layers: frozenset[int] | None = None,
    ) -> Iterator[tuple[int, np.ndarray]]:
        """
        Attention from some tokens of each prompt to all of its tokens. What prompts begin with in common is read once.

        :param rows: The part of the prompt whose tokens attend, such as `("last", 0)`; an answer's tokens are read
            one place earlier, where they are predicted.
        :param layers: Which layers; None for all. Layers after the last of them are not computed.
        :returns: The number of each prompt, the first ones early, and its `[layers, heads, tokens]`, the mean over the
            attending tokens.
        """
        self.readable()
        last = self.last_layer(layers)
        for numbers in self._batches(prompts):
            ids = [prompts[number].ids for number in numbers]
            attending = [prompts[number].spans[rows] - (rows[0] == "target") for number in numbers]
            most = min(int(places[0]) for places in attending)
            start, inputs = self._after_beginning(ids, most, partial(self._read_beginning, last=last))
            positions = self._padded([places - start for places in attending], -1)
            read = self._read(Capture(positions, kind, layers, last=last), **inputs)
            for place, number in enumerate(numbers):
                yield number, read[place, :, :, : len(prompts[number].ids)]

    def attention_after(
        self,
        prefix: list[int],
        suffixes: Sequence[tuple[list[int], np.ndarray]],
        layers: frozenset[int] | None = None,
        kind: str = "attention",
    ) -> list[np.ndarray]:
        """
        Attention from several continuations of one text, whose keys and values are computed once.

        :param suffixes: Continuations: tokens, and positions within them of the attending tokens.
        :returns: For each continuation `[layers, heads, prefix + continuation tokens]`.
        """
        self.readable()
        last = self.last_layer(layers)
        read = []
        cache: DynamicCache | None = None
        if self._caches and prefix:
            cache = self._read_beginning(prefix, last)
        for ids, positions in suffixes:
            if cache is None:
                capture = Capture(self._padded([positions + len(prefix)], -1), kind, layers, last=last)
                read.append(self._read(capture, input_ids=self._padded([prefix + ids], 0), use_cache=False)[0])
                continue
            capture = Capture(self._padded([positions], -1), kind, layers, last=last)
            read.append(self._read(capture, input_ids=self._padded([ids], 0), **self.kept(cache))[0])
            for layer in cache.layers:
                assert isinstance(layer, DynamicLayer)
                layer.crop(len(prefix) - layer.get_seq_length())
        return read

    def kept(self, cache: DynamicCache) -> dict[str, Any]:
        """The model's inputs that let it go on after what it has read, and keep what it reads."""
        return {self.cache_name: cache, "use_cache": True}

    def _read_beginning(self, ids: list[int], last: int) -> DynamicCache:
        """Keys and values of a text, up to the last layer that is needed."""
        cache = DynamicCache()
        read_attention(self.model, Capture(None, last=last), input_ids=self._padded([ids], 0), **self.kept(cache))
        return cache

    def last_layer(self, layers: frozenset[int] | None) -> int:
        """The last layer that has to be computed where these are read; None stands for all."""
        kinds = getattr(self.config, "layer_types", None) or ["full_attention"] * self.layers
        return max(layers or [number for number, kind in enumerate(kinds) if kind.endswith("attention")])

    def readable(self) -> None:
        """Prepare the model for reading its attention; a ValueError if that is not possible."""
        if self.model.config._attn_implementation != "haystack_distill":
            make_readable(self.model)

    def _read(self, capture: Capture, **inputs: Any) -> np.ndarray:
        read_attention(self.model, capture, **inputs)
        if not capture.found:
            msg = (
                f"{type(self.model).__name__} has no attention layer that could be read: use a likelihood signal "
                "(question, pdist) with it."
            )
            raise ValueError(msg)
        return capture.stacked().cpu().numpy()

    def _padded(self, rows: Sequence[Any], fill: int) -> Tensor:
        return padded(rows, fill, self.model.device)[0]

    def _batch(self, prompts: list[Encoded]) -> list[np.ndarray]:
        # The token before the first target token predicts it, so it stays with its prompt.
        most = min(int(prompt.target()[0]) - 1 for prompt in prompts)
        with torch.inference_mode():
            start, inputs = self._after_beginning([prompt.ids for prompt in prompts], most, self._read_body)
            places = [prompt.target() - 1 - start for prompt in prompts]
            rows = torch.from_numpy(np.concatenate([np.full(len(p), n) for n, p in enumerate(places)]))
            columns = torch.from_numpy(np.concatenate(places))
            targets = torch.tensor([prompt.ids[token] for prompt in prompts for token in prompt.target()])
            with only_rows(self.model.get_output_embeddings(), rows, columns):
                logits = self.model(**inputs).logits[0]
            values = log_likelihood(logits, targets.to(logits.device)).cpu().numpy()
        return np.split(values, np.cumsum([len(place) for place in places])[:-1])

    def _read_body(self, ids: list[int]) -> DynamicCache:
        """Keys and values of a text, by the model without its vocabulary; its attention need not be readable."""
        cache = DynamicCache()
        self.model.get_decoder()(input_ids=self._padded([ids], 0), **self.kept(cache))
        return cache

    def _batches(self, prompts: Sequence[Encoded]) -> Iterator[list[int]]:
        """Prompts that share most of their tokens together, the others with neighbours of their length."""
        rows = [prompt.ids for prompt in prompts]
        families = sharing(rows) if self._caches else [[number] for number in range(len(prompts))]
        alone: list[int] = []
        for family in families:
            if len(family) > 1:
                # It costs little more than its endings, so more of them fit a forward pass.
                longest = max(len(rows[number]) for number in family)
                ending = longest - min(shared_tokens(rows[family[0]], rows[number]) for number in family)
                most = max(self.batch_size, min(MOST_ENDINGS, self.batch_size * longest // max(ending, 1)))
                yield from (family[start : start + most] for start in range(0, len(family), most))
            else:
                alone += family
            if len(alone) == POOL * self.batch_size:
                yield from by_length(rows, alone, self.batch_size)
                alone = []
        yield from by_length(rows, alone, self.batch_size)

    def _after_beginning(
        self, rows: list[list[int]], most: int, read: Callable[[list[int]], DynamicCache]
    ) -> tuple[int, dict[str, Any]]:
        """How many tokens are read once for all rows, `most` at most, and the model's inputs for what follows them."""
        start = self.shared_beginning(rows, most)
        inputs: dict[str, Any] = {"input_ids": self._padded([row[start:] for row in rows], 0), "use_cache": False}
        if start:
            cache = read(rows[0][:start])
            cache.batch_repeat_interleave(len(rows))
            inputs |= self.kept(cache)
        return start, inputs

    def shared_beginning(self, rows: list[list[int]], most: int) -> int:
        """How many tokens all rows begin with, `most` at most; 0 where that is not worth a forward pass of its own."""
        if len(rows) < 2 or not self._caches:
            return 0
        shared = min(most, *(shared_tokens(rows[0], row) for row in rows[1:]))
        return shared if shared >= SHARED else 0


def sharing(rows: Sequence[Sequence[int]]) -> list[list[int]]:
    """Put each row, by its number, into a family of rows that share at least half of their tokens, at the beginning."""
    order = sorted(range(len(rows)), key=lambda number: list(rows[number]))
    families: list[list[int]] = []
    for number in order:
        if families:
            first = rows[families[-1][0]]
            shared = shared_tokens(first, rows[number])
            if shared >= SHARED and 2 * shared >= max(len(first), len(rows[number])):
                families[-1].append(number)
                continue
        families.append([number])
    return sorted((sorted(family) for family in families), key=lambda family: family[0])


def shared_tokens(first: Sequence[int], second: Sequence[int]) -> int:
    """How many tokens two rows begin with in common."""
    pairs = enumerate(zip(first, second, strict=False))
    return next((place for place, (token, other) in pairs if token != other), min(len(first), len(second)))


def by_length(rows: Sequence[Sequence[int]], numbers: Sequence[int], size: int) -> Iterator[list[int]]:
    """Batches of rows of similar length, since padding costs time; the longest first: a lack of memory shows early."""
    order = sorted(numbers, key=lambda number: -len(rows[number]))
    for start in range(0, len(order), size):
        yield order[start : start + size]


def padded(rows: Sequence[Any], fill: int, device: torch.device | None = None) -> tuple[Tensor, Tensor]:
    """Rows of numbers padded at their end, and the mask of what is theirs: both `[rows, longest]`."""
    tensors = [torch.as_tensor(row, dtype=torch.int64) for row in rows]
    tokens = nn.utils.rnn.pad_sequence(tensors, batch_first=True, padding_value=fill)
    lengths = torch.tensor([len(row) for row in rows])
    return tokens.to(device), (torch.arange(tokens.shape[1]) < lengths[:, None]).long().to(device)


def log_likelihood(logits: Tensor, targets: Tensor) -> Tensor:
    """
    Log-likelihoods of tokens, `[tokens]`, float32, in blocks: a vocabulary in float32 is large.

    :param logits: `[tokens, vocabulary]`.
    """
    blocks = zip(logits.split(VOCABULARY_ROWS), targets.split(VOCABULARY_ROWS), strict=True)
    return torch.cat(
        [block.float().gather(1, wanted[:, None])[:, 0] - block.float().logsumexp(1) for block, wanted in blocks]
    )


@contextmanager
def only_rows(head: nn.Module, rows: Tensor, columns: Tensor) -> Iterator[None]:
    """
    Compute the vocabulary only where it is asked for: `[batch, tokens, dim]` becomes `[1, asked for, dim]`.

    :param rows: `[asked for]`, which prompt.
    :param columns: `[asked for]`, which token.
    """

    def take(_: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        hidden = inputs[0]
        return (hidden[rows.to(hidden.device), columns.to(hidden.device)][None], *inputs[1:])

    handle = head.register_forward_pre_hook(take)
    try:
        yield
    finally:
        handle.remove()
