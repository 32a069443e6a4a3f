"""Dialogues with generated replies, and a training set of them."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from haystack_distill.data.training_set import write_training_set
from haystack_distill.responses.building import write_responses
from tests.conftest import sentences, write_lines


@pytest.fixture(scope="session")
def augmented(tmp_path_factory) -> Path:
    """Forty dialogues of one context each; replies begin with the last word of what they reply to."""
    lines, rows = sentences(40, seed=3), []
    random = np.random.default_rng(0)
    for number, line in enumerate(lines):
        word = line.rstrip(".").split()[-1]
        replies = [f"{word} {word} {extra}" for extra in sentences(int(random.integers(1, 4)), seed=100 + number)]
        responses = [{"text": text, "generated": place > 0} for place, text in enumerate(replies)]
        rows.append({"_id": f"d{number}-1", "context": ["Hello there.", line], "responses": responses})
    return write_lines(tmp_path_factory.mktemp("g2r") / "responses.jsonl", rows)


@pytest.fixture(scope="session")
def labelled(augmented, tmp_path_factory) -> Path:
    """With scores as a teacher gives them; a row is set aside."""
    folder = tmp_path_factory.mktemp("sets")
    rows = list(write_responses(augmented, folder / "bare"))
    random = np.random.default_rng(1)
    scored = [
        replace(row, teacher_scores=None if number == 5 else random.normal(-3, 1, len(row.documents)).tolist())
        for number, row in enumerate(rows)
    ]
    write_training_set(folder / "set", scored, source="test", teacher={"model": "test", "signal": "mi"})
    return folder / "set"
