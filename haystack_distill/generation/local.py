"""A causal language model of transformers as a generator: many prompts at a time, each text with a seed of its own."""

from collections.abc import Callable, Iterator, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import asdict, dataclass, replace
from functools import partial
from itertools import groupby
from typing import Any

import numpy as np
import torch
from torch import Tensor
from transformers import (
    DynamicCache,
    GenerationConfig,
    LogitsProcessor,
    LogitsProcessorList,
    TemperatureLogitsWarper,
    TopKLogitsWarper,
    TopPLogitsWarper,
)

from haystack_distill.files.bulk import bulk, one_result
from haystack_distill.generation.requests import Message, Reply, Request, Text
from haystack_distill.teachers.causal import CausalReader
from haystack_distill.teachers.control_tokens import broken, control_tokens

Fitted = tuple[Request, list[int]]
"""A request that fits into the model's window, and its tokens."""


@dataclass(frozen=True)
class Sampling:
    """
    How the next token is chosen.

    :param max_new_tokens: The most tokens of a text.
    :param top_k: How many of the likeliest tokens are drawn from; 0 for all.
    :param top_p: Only the likeliest tokens that together have this probability are drawn from.
    :raises ValueError: If a setting makes no sense.
    """

    max_new_tokens: int = 64
    temperature: float = 1.0
    top_k: int = 0
    top_p: float = 0.95

    def __post_init__(self) -> None:
        if self.max_new_tokens < 1 or self.temperature < 0 or self.top_k < 0 or not 0 < self.top_p <= 1:
            msg = (
                f"{self} can't be sampled with: max_new_tokens is at least 1, temperature and top_k at least 0, and "
                "top_p above 0 and at most 1."
            )
            raise ValueError(msg)


class LocalGenerator:
    """
    Generates with a causal language model.

    Batches are the same whenever they are made of the same requests, so a run that goes on after a kill writes the same
    text; with another batch size a text can differ where two tokens are equally good but for rounding.

    :param name: The model's name, which is kept beside every text.
    :param load_again: Makes the same generator in another process.
    :param num_workers: How many processes generate; see `files.bulk`.
    :raises ValueError: If the model is no causal language model.
    """

    def __init__(
        self,
        reader: Any,
        name: str,
        sampling: Sampling | None = None,
        *,
        batch_size: int = 16,
        load_again: Callable[[], "LocalGenerator"] | None = None,
        num_workers: int = 1,
    ) -> None:
        if not isinstance(reader, CausalReader):
            msg = f"{name} is no causal language model: an encoder-decoder reads, but does not write what is asked for."
            raise ValueError(msg)
        self.reader = reader
        self.name = name
        self.sampling = sampling or Sampling()
        self.batch_size = batch_size
        self.load = load_again if load_again and num_workers > 1 else lambda: self
        self.num_workers = num_workers
        tokenizer = reader.tokenizer
        self._control = control_tokens(tokenizer)
        self._chat = bool(tokenizer.chat_template)
        # Padding after shared tokens makes the way to them longer, which a sliding window would take for distance.
        kinds = getattr(reader.config, "layer_types", None)
        everywhere = set(kinds) == {"full_attention"} if kinds else not getattr(reader.config, "sliding_window", None)
        self._reads_ahead = reader._caches and everywhere

    @property
    def identity(self) -> dict[str, Any]:
        """Model, precision, chat template, sampling and batch size."""
        return {
            "model": self.name,
            "loaded_from": getattr(self.reader.model.config, "_name_or_path", ""),
            "dtype": str(self.reader.model.dtype),
            "chat_template": self.reader.tokenizer.chat_template,
            "sampling": asdict(self.sampling),
            "batch_size": self.batch_size,
        }

    def work(self, requests: Sequence[Request], done: AbstractSet[str]) -> Iterator[list[Reply]]:
        """
        Generate batch by batch, prompts of similar length together; see `Generator.work`.

        :param done: Ids of those that have been answered before; a batch with another is generated as a whole.
        """
        fitted = []
        for request in requests:
            fits = self._fit(request)
            if fits is not None:
                fitted.append(fits)
            elif request.id not in done:
                reason = f"it does not fit into the model's window of {self.reader.window} tokens"
                yield [Reply(request.id, (), self.name, cut=0, reason=reason)]
        yield from bulk(
            self._batches(fitted, done), partial(one_result, partial(_answering, self.load)), self.num_workers
        )

    def _batches(self, fitted: list[Fitted], done: AbstractSet[str]) -> Iterator[list[Fitted]]:
        # Requests of one batch share one number of texts, so that each prompt is read once for all of its texts.
        fitted.sort(key=lambda fit: (len(fit[0].seeds), -len(fit[1])))
        for count, group in groupby(fitted, key=lambda fit: len(fit[0].seeds)):
            alike = list(group)
            size = max(1, self.batch_size // count)
            for start in range(0, len(alike), size):
                batch = alike[start : start + size]
                if any(request.id not in done for request, _ in batch):
                    yield batch

    def _fit(self, request: Request) -> Fitted | None:
        """The request in tokens, shortened until it leaves room for the text."""
        shorter: Request | None = self._plain(request)
        while shorter is not None:
            ids = self._ids(shorter)
            if len(ids) + self.sampling.max_new_tokens <= self.reader.window:
                return shorter, ids
            shorter = shorter.shortened()
        return None

    def _plain(self, request: Request) -> Request:
        """The same without this tokenizer's control tokens: only its chat template may put them in."""
        tokens = self._control
        return replace(
            request,
            turns=tuple(broken(turn, tokens) for turn in request.turns),
            head=tuple(Message(role, broken(text, tokens)) for role, text in request.head),
            before=broken(request.before, tokens),
            after=broken(request.after, tokens),
        )

    def _ids(self, request: Request) -> list[int]:
        tokenizer = self.reader.tokenizer
        if not self._chat:
            return list(tokenizer(plain_text(request), verbose=False)["input_ids"])
        chat = [{"role": message.role, "content": message.text} for message in request.messages]
        text = str(tokenizer.apply_chat_template(chat, tokenize=False, add_generation_prompt=True))
        return list(tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"])

    def answer(self, batch: list[Fitted]) -> list[Reply]:
        """Generate the texts of a batch, whose requests ask for equally many."""
        requests = [request for request, _ in batch]
        seeds = [seed for request in requests for seed in request.seeds]
        with self.reader._lock, torch.inference_mode():
            written, likelihoods = self._generate([ids for _, ids in batch], seeds)
        texts = iter(
            Text(
                str(self.reader.tokenizer.decode(ids, skip_special_tokens=True)),
                seed,
                likelihood,
                finished=len(ids) < self.sampling.max_new_tokens,
            )
            for ids, seed, likelihood in zip(written, seeds, likelihoods, strict=True)
        )
        counts = iter([len(ids) for ids in written])
        return [
            Reply(
                request.id,
                tuple(next(texts) for _ in request.seeds),
                self.name,
                {"prompt_tokens": len(ids), "completion_tokens": sum(next(counts) for _ in request.seeds)},
                request.cut,
            )
            for request, ids in batch
        ]

    def _generate(self, prompts: list[list[int]], seeds: list[int]) -> tuple[list[list[int]], list[float | None]]:
        """Texts in tokens, without what ends them, and their mean log-likelihoods."""
        model, tokenizer = self.reader.model, self.reader.tokenizer
        copies = len(seeds) // len(prompts)
        ends = _end_tokens(model, tokenizer)
        inputs = self._inputs(prompts, copies)
        length = inputs["input_ids"].shape[1]
        sampler = SeededSampling(seeds, self.sampling)
        config = GenerationConfig(
            max_new_tokens=self.sampling.max_new_tokens,
            do_sample=False,  # the sampler leaves one token
            eos_token_id=ends,
            pad_token_id=ends[0],
            **({} if self._chat else {"stop_strings": ["\n"]}),
        )
        found = model.generate(
            **inputs, generation_config=config, logits_processor=LogitsProcessorList([sampler]), tokenizer=tokenizer
        )
        written, means = [], []
        values = torch.stack(sampler.log_likelihoods, 1).cpu().numpy()
        for row, likelihoods in zip(found[:, length:].tolist(), values, strict=True):
            end = next((place for place, token in enumerate(row) if token in ends), len(row))
            written.append(row[:end])
            means.append(float(np.mean(likelihoods[:end], dtype=np.float64)) if end else None)
        return written, means

    def _inputs(self, prompts: list[list[int]], copies: int) -> dict[str, Any]:
        """
        Prompts padded at their beginning, each as often as it has texts, and read but for its last token.

        What all prompts share (instructions, examples) is read once for all, each prompt once for all of its texts.
        """
        shared = self._shared(prompts)
        longest = max(len(ids) for ids in prompts)
        fill = prompts[0][0]
        rows = [[*ids[:shared], *[fill] * (longest - len(ids)), *ids[shared:]] for ids in prompts]
        seen = [[1] * shared + [0] * (longest - len(ids)) + [1] * (len(ids) - shared) for ids in prompts]
        device = self.reader.model.device
        ids, mask = torch.tensor(rows, device=device), torch.tensor(seen, device=device)
        inputs: dict[str, Any] = {
            "input_ids": ids.repeat_interleave(copies, 0),
            "attention_mask": mask.repeat_interleave(copies, 0),
        }
        if self._reads_ahead and longest > 1:
            cache, body = DynamicCache(), self.reader.model.get_decoder()
            if shared:
                body(input_ids=ids[:1, :shared], **self.reader.kept(cache))
                cache.batch_repeat_interleave(len(rows))
            body(
                input_ids=ids[:, shared:-1],
                attention_mask=mask[:, :-1],
                position_ids=(mask.cumsum(-1) - 1).clamp_min(0)[:, shared:-1],
                **self.reader.kept(cache),
            )
            cache.batch_repeat_interleave(copies)
            inputs[self.reader.cache_name] = cache
        return inputs

    def _shared(self, prompts: list[list[int]]) -> int:
        """How many tokens all prompts begin with; at least two are left to each."""
        most = min(len(ids) for ids in prompts) - 2
        return self.reader.shared_beginning(prompts, most) if self._reads_ahead else 0


class SeededSampling(LogitsProcessor):
    """Chooses each row's next token with the row's own random numbers, so that a text depends on no other row."""

    def __init__(self, seeds: Sequence[int], sampling: Sampling) -> None:
        self.numbers = torch.from_numpy(
            np.stack([np.random.default_rng(seed).random(sampling.max_new_tokens) for seed in seeds])
        )
        self.greedy = sampling.temperature == 0
        self.warpers = LogitsProcessorList()
        if not self.greedy:
            self.warpers.append(TemperatureLogitsWarper(sampling.temperature))
        if sampling.top_k:
            self.warpers.append(TopKLogitsWarper(sampling.top_k))
        if sampling.top_p < 1:
            self.warpers.append(TopPLogitsWarper(sampling.top_p))
        self.log_likelihoods: list[Tensor] = []

    def __call__(self, input_ids: Any, scores: Any) -> Any:
        """
        Choose.

        :param input_ids: `[rows, tokens]`, all before.
        :param scores: `[rows, vocabulary]`.
        :returns: `[rows, vocabulary]`: 0 for the chosen token and minus infinity for the others.
        """
        scores = scores.float()
        if self.greedy:
            chosen = scores.argmax(-1, keepdim=True)
        else:
            cumulative = self.warpers(input_ids, scores).double().softmax(-1).cumsum(-1)
            number = self.numbers[:, len(self.log_likelihoods), None].to(scores.device)
            chosen = torch.searchsorted(cumulative, number * cumulative[:, -1:], right=True)
            chosen = chosen.clamp_max(scores.shape[-1] - 1)
        self.log_likelihoods.append(scores.log_softmax(-1).gather(1, chosen)[:, 0])
        return torch.full_like(scores, -torch.inf).scatter(1, chosen, 0.0)


def _answering(load: Callable[[], LocalGenerator]) -> Callable[[list[Fitted]], list[Reply]]:
    return load().answer


def plain_text(request: Request) -> str:
    """A request for a model without a chat template: turns of A and B, or texts each with its cue."""
    dialogue = request.cue == "B:"
    lines: list[str] = []
    for role, text in request.messages:
        speaker = {"user": "A: ", "assistant": "B: "}.get(role, "") if dialogue else ""
        if role == "assistant" and not dialogue:
            lines[-1] += f"\n{request.cue} {text}"
        else:
            lines.append(f"{speaker}{text}")
    return ("\n" if dialogue else "\n\n").join(lines) + f"\n{request.cue}"


def _end_tokens(model: Any, tokenizer: Any) -> list[int]:
    """What ends a text: chat models often name more tokens in their generation config than their tokenizer does."""
    named = getattr(model.generation_config, "eos_token_id", None)
    ends = [*(named if isinstance(named, list) else [named]), tokenizer.eos_token_id]
    return [int(token) for token in dict.fromkeys(ends) if token is not None]
