"""A small data set whose train and dev ask what test asks, and a record of what is trained on."""

from pathlib import Path

import numpy as np
import pytest
from sentence_transformers import SentenceTransformerTrainer

from tests.conftest import sentences, write_beir

ASKED = "lantern velvet copper winter sailor window marble?"
"""What test asks, and train and dev too."""


@pytest.fixture
def leaking(tmp_path) -> Path:
    """
    A folder in which train and dev repeat a question of test, in capitals.

    Queries are some words of their documents in another order: 60 to train on, 10 for dev, 20 for test.
    """
    lines = sentences(360, seed=1)
    documents = {f"d{number}": " ".join(lines[4 * number : 4 * number + 4]) for number in range(90)}
    random = np.random.default_rng(0)
    queries = {
        key: " ".join(random.permutation(text.replace(".", "").split())[:7]) + "?"
        for key, text in ((f"q{number}", documents[f"d{number}"]) for number in range(90))
    }
    queries |= {"q0": ASKED.upper(), "q60": f" {ASKED.capitalize()}", "q70": ASKED}
    splits = {"train": range(60), "dev": range(60, 70), "test": range(70, 90)}
    qrels = {split: {f"q{number}": f"d{number}" for number in numbers} for split, numbers in splits.items()}
    return write_beir(tmp_path / "squadshifts" / "new_wiki", documents, queries, qrels)


@pytest.fixture(autouse=True)
def briefly(monkeypatch):
    """Benchmarks run as they are, but for what takes long and changes no row's meaning."""
    monkeypatch.setattr("haystack_distill.students.layer_search.MAX_CANDIDATES", 3)
    monkeypatch.setattr("haystack_distill.evaluation.quality.RESAMPLES", 500)
    monkeypatch.setattr("haystack_distill.evaluation.comparison.LATENCY_QUERIES", 3)


@pytest.fixture
def trained_on(monkeypatch) -> set[str]:
    """All texts that any trainer is given, in small letters."""
    texts: set[str] = set()
    init = SentenceTransformerTrainer.__init__

    def recording(self, *arguments, **named):
        rows = named["train_dataset"]
        for column in rows.column_names:
            texts.update(value.strip().lower() for value in rows[column] if isinstance(value, str))
        init(self, *arguments, **named)

    monkeypatch.setattr(SentenceTransformerTrainer, "__init__", recording)
    return texts


@pytest.fixture
def tiny(bert, tmp_path, monkeypatch):
    """Benchmarks that name MiniLM get a random encoder of six layers, in a folder of their own."""
    monkeypatch.chdir(tmp_path)

    def in_module(*modules):
        for module in modules:
            monkeypatch.setattr(module, "minilm", lambda: bert)
        return bert

    return in_module
