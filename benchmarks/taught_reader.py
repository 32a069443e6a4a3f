"""A reader that was taught the answers of train questions, made once for all tables."""

import hashlib
from pathlib import Path

import numpy as np

from benchmarks.common import CACHE
from haystack_distill.data.training_set import Row, write_training_set
from haystack_distill.evaluation.held_out import unseen
from haystack_distill.teachers.answers import AnswerSettings
from haystack_distill.teachers.fine_tuning import FineTuningSettings, fine_tune_reader, holds
from haystack_distill.teachers.scores import Candidates

PASSAGES, WORDS = 4, 64
"""Passages of a question, and how many words of each are read in training: some hundred questions then take minutes."""


def taught_reader(name: str, questions: list[Candidates], asked: list[str], *, together: bool) -> Path:
    """
    Teach a reader, or find it taught already.

    :param name: Folder, hub name or GGUF file.
    :param questions: Train questions with what the retriever found for them, in its order.
    :param asked: Questions that will be measured on: none of them is learnt.
    :param together: Whether all passages of a question stand in one prompt, as they then do when it is read.
    :returns: The reader's folder.
    """
    left = set(unseen([one.query for one in questions], asked))
    rows = [row for row in map(_row, (one for one in questions if one.query in left)) if row]
    settings = FineTuningSettings("loop" if together else "pdist", PASSAGES, AnswerSettings(1, 4, 2))
    content = repr((Path(name).name, settings, [(row.query, row.answers, row.documents) for row in rows]))
    folder = CACHE / f"taught-{hashlib.sha256(content.encode()).hexdigest()[:24]}"
    if not folder.exists():
        training_set = folder.with_name(f"{folder.name}-rows")
        if not training_set.exists():
            write_training_set(training_set, rows)
        fine_tune_reader(training_set, name, folder, settings)
    return folder


def _row(one: Candidates) -> Row | None:
    """The first passages of a question in a random order, if its answer stands in one of them."""
    texts = [_around(passage, one.answers[0]) for passage in one.passages[:PASSAGES]]
    if not any(holds(text, one.answers[0]) for text in texts):
        return None
    order = np.random.default_rng(len(one.query)).permutation(len(texts))
    ids = [f"{number}" for number in order]
    return Row(one.query, one.query, one.answers, ids, [texts[number] for number in order], [0.0] * len(ids))


def _around(passage: str, answer: str) -> str:
    """The words of a passage around an answer, or its first ones."""
    words = passage.split()
    before = _plain(passage).partition(_plain(answer))[0] if holds(passage, answer) else ""
    start = max(0, min(len(before.split()) - WORDS // 2, len(words) - WORDS))
    return " ".join(words[start : start + WORDS])


def _plain(text: str) -> str:
    return " ".join(text.lower().split())
