"""How long an alignment will take, told before it begins by what a few texts take."""

import time
from collections.abc import Sequence

from haystack_distill.align.training import LAYERED_TOKENS, MAX_EPOCHS
from haystack_distill.students.bi_encoder import BiEncoder
from haystack_distill.students.cutting import find_stack

TIMED = 64
"""Texts that the teacher is timed on."""

AROUND = 30.0
"""Seconds that the search for layers and the proof take, besides the texts."""


def expected_minutes(
    teacher: BiEncoder,
    texts: Sequence[str],
    count: int,
    layers: int,
    *,
    epochs: float | None = None,
    solved: bool = False,
) -> float:
    """
    Tell how long the teacher's vectors and the training take on this machine.

    :param texts: Some of the texts.
    :param count: How many there are.
    :param layers: How many layers the student has; 0 for a token table.
    :param epochs: Passes over the texts, if they are given.
    :param solved: Whether the student is solved for, which is no training.
    """
    sample = list(texts[:: max(1, len(texts) // TIMED)][:TIMED])
    teacher.encode_queries(sample[:2])
    started = time.perf_counter()
    teacher.encode_queries(sample)
    a_text = (time.perf_counter() - started) / max(1, len(sample))
    if solved:
        return (AROUND + count * a_text) / 60
    tokens = sum(len(ids) for ids in teacher.model.tokenizer(sample)["input_ids"]) / max(1, len(sample))
    passed = epochs * count if epochs else min(LAYERED_TOKENS / max(1.0, tokens), MAX_EPOCHS * count)
    # A step back costs twice a step forward; a table, what is around it.
    learning = 3 * (layers or 0.3) / len(find_stack(teacher.model)) * a_text * passed
    return (AROUND + count * a_text + learning) / 60
