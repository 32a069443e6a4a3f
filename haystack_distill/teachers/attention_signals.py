# SPDX-FileCopyrightText: 2026-present haystack-distill contributors
#
# SPDX-License-Identifier: Apache-2.0

"""
Attention signals: where a reader looks when it answers, or when it reads the question.

- `dkrr` (arXiv 2012.04584, section 3.2): scores before the softmax from the first decoding step, mean over layers,
  heads and the passage's tokens. As published for Fusion-in-Decoder, where a passage's tokens are all of its encoder
  input; of a decoder-only model each passage is read alone, and the last token of the prompt is the one that decodes
  first.
- `adist` (Atlas, arXiv 2208.03299, section 2.2): softmax attention times the length of the value vector, from the
  answer's tokens: summed over layers and the passage's tokens, mean over heads and answer tokens, over 256 and the
  number of layers.
- `icr` (arXiv 2410.02642): all passages in one prompt, the question last; softmax attention from the question's tokens,
  summed over layers, heads and the passage's tokens, minus the same for the question "N/A"; tokens below mean - 2 std
  of their passage are left out.
- `heads`: as `icr`, from chosen heads alone. See `heads.py`.
"""

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np

from haystack_distill.teachers.causal import CausalReader
from haystack_distill.teachers.fusion_in_decoder import FusionReader
from haystack_distill.teachers.heads import Example, Heads
from haystack_distill.teachers.likelihood import check_places
from haystack_distill.teachers.prompts import Encoded, Prompt, UnscorableError
from haystack_distill.teachers.scores import (
    ROWS_AT_ONCE,
    ROWS_THAT_SHARE,
    Candidates,
    Scored,
    check_candidates,
    check_finite,
    cut_of,
    in_order,
    score_by_row,
)

SIGNALS = ("dkrr", "adist", "icr", "heads")
NEED_ANSWERS = frozenset({"adist"})
NO_QUESTION = "N/A"
ADIST_TOKENS = 256
"""Atlas divides by this constant, so that long passages are not put at a disadvantage."""


class AttentionTeacher:
    """
    Scores passages by the attention that they get.

    :param reader: The model.
    :param signal: One of `SIGNALS`.
    :param prompt: None takes the signal's own.
    :param heads: The heads that `heads` reads.
    :param permutations: In how many orders `icr` and `heads` read the passages; the scores are averaged.
    :param name: Of the model, for the identity.
    :raises ValueError: If there is no such signal, or reader, prompt or heads don't suit it.
    """

    def __init__(
        self,
        reader: CausalReader | FusionReader,
        signal: str,
        prompt: Prompt | None = None,
        *,
        heads: Heads | None = None,
        permutations: int = 1,
        name: str = "",
    ) -> None:
        if signal not in SIGNALS:
            msg = f"There is no attention signal {signal!r}: choose one of {', '.join(SIGNALS)}."
            raise ValueError(msg)
        joint = signal in {"icr", "heads"}
        if joint and not isinstance(reader, CausalReader):
            msg = f"{signal!r} reads decoder-only models; an encoder-decoder has 'dkrr' and 'adist', and 'pdist'."
            raise ValueError(msg)
        if (signal == "heads") != (heads is not None):
            msg = "The signal 'heads' needs heads, chosen by select_heads or `haystack-distill heads`; no other does."
            raise ValueError(msg)
        if permutations < 1 or (permutations > 1 and not joint):
            msg = f"permutations={permutations} does not suit {signal!r}: only 'icr' and 'heads' read several orders."
            raise ValueError(msg)
        if heads is not None:
            heads.check_belongs_to(name, reader.layers)
        reader.readable()
        self.reader = reader
        self.signal = signal
        self.prompt = prompt or reader.prompts[signal]
        check_places(self.prompt, reader.prompts[signal], signal)
        if joint and self.prompt.question_first:
            msg = f"{signal!r} reads the attention of the question to the passages: the question must come after them."
            raise ValueError(msg)
        self.heads = heads
        self.permutations = permutations
        self.name = name

    @property
    def rows_at_once(self) -> int:
        """How many questions it likes at a time: a passage that was found for several of them is read once."""
        shares = self.signal in {"dkrr", "adist"} and isinstance(self.reader, CausalReader)
        return ROWS_THAT_SHARE if shares and not self.prompt.question_first else ROWS_AT_ONCE

    @property
    def identity(self) -> dict[str, Any]:
        """Model, signal, prompt, and what else the scores depend on."""
        return {
            "model": self.name,
            "signal": self.signal,
            "prompt": self.prompt.fingerprint(self.reader.tokenizer),
            "max_passage_tokens": self.reader.max_passage_tokens,
            "permutations": self.permutations,
            "heads": self.heads.fingerprint if self.heads else None,
        }

    def score(self, rows: Sequence[Candidates]) -> list[Scored]:
        """
        Score the passages of several questions.

        :param rows: The questions.
        :returns: One for each row.
        :raises UnscorableError: If a row can't be scored.
        """
        return in_order(self.score_each(rows))

    def score_each(self, rows: Sequence[Candidates]) -> Iterator[tuple[int, Scored | UnscorableError]]:
        """
        Score the passages of many questions, each as soon as its passages are done; prompts of all rows share batches.

        :param rows: The questions.
        :returns: The number of each row, and its scores or why it has none.
        """
        if self.signal not in {"icr", "heads"}:
            yield from score_by_row(rows, self._prompts, self._read, self._scored)
            return
        for number, row in enumerate(rows):
            try:
                check_candidates(row, self.signal, answers=False)
                yield number, self._checked(row, self._in_context(row))
            except UnscorableError as error:
                yield number, error

    def _prompts(self, row: Candidates) -> list[Any]:
        """One with all passages for a decoder that reads them together, else one a passage."""
        check_candidates(row, self.signal, answers=self.signal in NEED_ANSWERS)
        together = [row.passages] if isinstance(self.reader, FusionReader) else [[one] for one in row.passages]
        target = row.answers[0] if self.signal in NEED_ANSWERS else None
        return [self.reader.encode(self.prompt, row.query, passages, target) for passages in together]

    def _read(self, prompts: list[Any]) -> Iterator[tuple[int, list[float]]]:
        """The scores of the passages in each prompt; attention itself is too large to be kept for many."""
        rows, kind = (("last", 0), "scores") if self.signal == "dkrr" else (("target", 0), "value_norm")
        for number, read in self.reader.attention(prompts, rows, kind):
            yield number, [self._reduce(read, tokens) for tokens in prompts[number].places()]

    def _scored(self, row: Candidates, prompts: list[Any], values: list[list[float]]) -> Scored:
        cut = prompts[0].cut if isinstance(self.reader, FusionReader) else cut_of(prompts)
        return self._checked(row, Scored(np.array([score for of_prompt in values for score in of_prompt]), cut))

    def _checked(self, row: Candidates, scored: Scored) -> Scored:
        """No layer of a model whose layers all have sliding windows may see a passage that is far from the question."""
        scores = scored.scores
        if np.isnan(scores).all() or not scores.any():
            msg = (
                f"No attention reaches the passages of the query {row.query!r}: they lie outside the sliding windows "
                f"of {type(self.reader.model).__name__}. Use a likelihood signal (question, pdist) with it."
            )
            raise UnscorableError(msg)
        check_finite(row, scores)
        return scored

    def _reduce(self, read: np.ndarray, tokens: np.ndarray) -> float:
        """`read` is `[layers, heads, tokens]`."""
        own = read[:, :, tokens].astype(np.float64)
        if self.signal == "dkrr":
            return float(np.nanmean(own)) if np.isfinite(own).any() else float("nan")
        return float(own.mean(1).sum() / (ADIST_TOKENS * len(read)))

    def _in_context(self, row: Candidates) -> Scored:
        assert isinstance(self.reader, CausalReader)
        total = np.zeros(len(row.passages))
        cut: frozenset[int] = frozenset()
        orders = passage_orders(len(row.passages), self.permutations)
        for order in orders:
            passages = [row.passages[number] for number in order]
            calibrated, prompt = calibrated_attention(
                self.reader, self.prompt, row.query, passages, self.heads.layers if self.heads else None
            )
            by_token = calibrated.sum((0, 1)) if self.heads is None else self.heads.pick(calibrated).sum(0)
            for place, number in enumerate(order):
                total[number] += without_outliers(by_token[prompt.spans[("passage", place)]]).sum()
            cut |= {order[place] for place in prompt.cut}
        return Scored(total / len(orders), cut)


def calibrated_attention(
    reader: CausalReader, prompt: Prompt, query: str, passages: list[str], layers: frozenset[int] | None = None
) -> tuple[np.ndarray, Encoded]:
    """
    Attention from the question's tokens to all before them, minus that of a question that asks for nothing.

    Keys and values of the passages are computed once for both.

    :param reader: The model.
    :param prompt: With the passages before the question.
    :param query: The question.
    :param passages: The passages.
    :param layers: Which layers; None for all.
    :returns: `[layers, heads, tokens before the question]` and the prompt.
    :raises UnscorableError: If the prompt does not fit the window.
    """
    asked, empty = _encode_both(reader, prompt, query, passages)
    spans = asked.spans[("question", 0)], empty.spans[("question", 0)]
    most = min(int(span[0]) for span in spans)
    pairs = zip(asked.ids[:most], empty.ids[:most], strict=True)
    shared = next((place for place, (first, second) in enumerate(pairs) if first != second), most)
    suffixes = [
        (one.ids[shared : span[-1] + 1], span - shared) for one, span in zip((asked, empty), spans, strict=True)
    ]
    with_question, without = reader.attention_after(asked.ids[:shared], suffixes, layers)
    return with_question[:, :, :shared] - without[:, :, :shared], asked


def _encode_both(reader: CausalReader, prompt: Prompt, query: str, passages: list[str]) -> tuple[Encoded, Encoded]:
    """With the same cuts, whichever question is the longer one."""
    given = passages
    for _ in range(8):
        asked = reader.encode(prompt, query, passages)
        empty = reader.encode(prompt, NO_QUESTION, list(asked.passages))
        if asked.passages == empty.passages:
            cut = frozenset(n for n, (old, new) in enumerate(zip(given, asked.passages, strict=True)) if old != new)
            return Encoded(asked.ids, asked.spans, cut, asked.passages), empty
        passages = list(empty.passages)
    msg = f"The query {query!r} and its passages can't be cut to the reader's window."
    raise UnscorableError(msg)


def without_outliers(values: np.ndarray) -> np.ndarray:
    """
    Leave out the tokens that lose much attention to the question: below mean - 2 standard deviations.

    :param values: `[tokens]` of one passage.
    :returns: The others.
    """
    if len(values) < 2:
        return values
    return values[values >= values.mean() - 2 * values.std(ddof=1)]


def passage_orders(passages: int, count: int) -> list[list[int]]:
    """
    The orders in which passages are read: as they come, backwards, then at random.

    :param passages: How many.
    :param count: How many orders.
    :returns: The same for the same numbers.
    """
    random = np.random.default_rng(0)
    orders = [list(range(passages)), list(range(passages))[::-1]]
    orders += [random.permutation(passages).tolist() for _ in range(count - 2)]
    return orders[:count]


def head_examples(
    reader: CausalReader, rows: Iterable[Candidates], right: Iterable[int], prompt: Prompt | None = None
) -> Iterator[Example]:
    """
    What `select_heads` chooses heads on.

    :param reader: The model.
    :param rows: Questions with their passages.
    :param right: For each the number of the passage that answers it, known or by another teacher's word.
    :param prompt: None takes that of `icr`.
    :returns: Examples.
    """
    for row, number in zip(rows, right, strict=True):
        attention, encoded = calibrated_attention(reader, prompt or reader.prompts["heads"], row.query, row.passages)
        spans = [encoded.spans[("passage", place)] for place in range(len(row.passages))]
        yield Example(np.stack([attention[:, :, span].sum(2) for span in spans], axis=2), number)
