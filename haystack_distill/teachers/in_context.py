"""
In-context re-ranking (arXiv 2410.02642): all passages in one prompt, the question last.

As in the authors' code, the rows that attend are those of all that follows the passages: instruction, question and the
end of the turn. A passage's columns are its number and its text.
"""

from collections.abc import Iterable, Iterator
from dataclasses import replace

import numpy as np

from haystack_distill.teachers.causal import CausalReader, shared_tokens
from haystack_distill.teachers.heads import HeadExample
from haystack_distill.teachers.prompt_encoding import Encoded
from haystack_distill.teachers.prompts import Prompt
from haystack_distill.teachers.scores import Candidates
from haystack_distill.teachers.signals import SIGNALS

NO_QUESTION = "N/A"
"""A question that asks for nothing: attention that it draws too is no sign of relevance."""


def calibrated_attention(
    reader: CausalReader,
    prompt: Prompt,
    query: str,
    passages: list[str],
    *,
    rows: str = "request",
    kind: str = "attention",
    layers: frozenset[int] | None = None,
) -> tuple[np.ndarray, Encoded]:
    """
    Attention to all that stands before the request, minus that of a request that asks for nothing.

    Keys and values of the passages are computed once for both.

    :param rows: The part of the prompt whose tokens attend.
    :returns: `[layers, heads, tokens before the request]` and the prompt.
    :raises UnscorableError: If the prompt does not fit the window.
    """
    asked, empty = _encoded_both(reader, prompt, query, passages)
    attending = asked.spans[(rows, 0)], empty.spans[(rows, 0)]
    most = min(int(places[0]) for places in attending)
    shared = min(most, shared_tokens(asked.ids, empty.ids))
    suffixes = [
        (encoded.ids[shared : places[-1] + 1], places - shared)
        for encoded, places in zip((asked, empty), attending, strict=True)
    ]
    with_question, without = reader.attention_after(asked.ids[:shared], suffixes, layers, kind)
    return with_question[:, :, :shared] - without[:, :, :shared], asked


def _encoded_both(reader: CausalReader, prompt: Prompt, query: str, passages: list[str]) -> tuple[Encoded, Encoded]:
    """With the same cuts, whichever question is the longer one."""
    shorter = passages
    while True:  # the passages become shorter in each turn, so that there is a last one
        asked = reader.encode(prompt, query, shorter)
        empty = reader.encode(prompt, NO_QUESTION, list(asked.passages))
        if asked.passages == empty.passages:
            pairs = zip(passages, asked.passages, strict=True)
            return replace(asked, cut=frozenset(n for n, (old, new) in enumerate(pairs) if old != new)), empty
        shorter = list(empty.passages)


def head_examples(
    reader: CausalReader,
    rows: Iterable[Candidates],
    right: Iterable[int],
    prompt: Prompt | None = None,
    *,
    seed: int = 0,
) -> Iterator[HeadExample]:
    """
    What `select_heads` chooses heads on.

    Passages are shuffled, as the authors of QRHead do: in the retriever's order a head that always looks at the first
    passage would often be right.

    :param right: For each question the number of the passage that answers it, known or by another teacher's word.
    :param prompt: None takes that of `heads`.
    """
    random = np.random.default_rng(seed)
    prompt = prompt or SIGNALS["heads"].prompt_for(reader.kind)
    for row, number in zip(rows, right, strict=True):
        order = random.permutation(len(row.passages)).tolist()
        passages = [row.passages[place] for place in order]
        attention, encoded = calibrated_attention(reader, prompt, row.query, passages)
        spans = [encoded.spans[("item", place)] for place in range(len(order))]
        yield HeadExample(np.stack([attention[:, :, span].sum(2) for span in spans], axis=2), order.index(number))
