"""torchrun: several processes share each batch and its negatives, so that replies are learnt as in one."""

import json
import subprocess
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file

from haystack_distill.data.training_set import write_training_set
from haystack_distill.responses import training
from haystack_distill.responses.building import write_responses
from haystack_distill.responses.job import distill_responses
from haystack_distill.responses.rows import MINED
from haystack_distill.responses.training import G2RSettings
from tests.conftest import sentences
from tests.torchrun import TWO_PROCESSES, assert_same_weights

SCRIPT = """
import json, sys
from haystack_distill.responses import training
from haystack_distill.responses.job import distill_responses
from haystack_distill.responses.training import G2RSettings

training.bf16_is_fast = lambda _: False  # sums that are taken in another order would differ visibly
rows, model, folder, dev, every = sys.argv[1:]
for recipe, settings in json.loads(every).items():
    chosen = G2RSettings(recipe=recipe, **settings)
    distill_responses(rows, model, f"{folder}/two-{recipe}", chosen, dev=dev, device="cpu", progress=False)
"""

SMALL = {"alpha": 0.5, "negatives": 9, "batch_size": 8, "epochs": 2, "learning_rate": 5e-3}
RECIPES = dict.fromkeys(("dialogues", "model", "strong"), SMALL)


@pytest.fixture
def whole_batches(augmented, bert, tmp_path) -> Path:
    """
    Thirty-two contexts with scores, one to three responses and as many mined ones: halves of a batch differ.

    No mined one is there twice, for a batch without duplicates might be too small then.
    """
    made = list(write_responses(augmented, tmp_path / "bare", miner=bert, mined=3, device="cpu"))[:32]
    random = np.random.default_rng(2)
    for number, row in enumerate(made):
        mined = iter(sentences(3, seed=500 + number))
        row.documents[:] = [
            next(mined) if mark == MINED else text for text, mark in zip(row.documents, row.labels, strict=True)
        ]
    scored = [replace(row, teacher_scores=random.normal(-3, 1, len(row.documents)).tolist()) for row in made]
    write_training_set(tmp_path / "set", scored, source="test", teacher={"model": "test", "signal": "response"})
    return tmp_path / "set"


def test_two_processes_make_the_same_retriever_as_one(whole_batches, augmented, bert, tmp_path, monkeypatch):
    (tmp_path / "replies.py").write_text(SCRIPT)
    arguments = [tmp_path / "replies.py", whole_batches, bert, tmp_path, augmented, json.dumps(RECIPES)]
    done = subprocess.run([*TWO_PROCESSES, *map(str, arguments)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    monkeypatch.setattr(training, "bf16_is_fast", lambda _: False)
    for recipe, settings in RECIPES.items():
        how, output = G2RSettings(recipe=recipe, **settings), tmp_path / f"one-{recipe}"
        distill_responses(whole_batches, bert, output, how, dev=augmented, device="cpu", progress=False)
        folders = (bert, output, tmp_path / f"two-{recipe}")
        before, one, two = (load_file(Path(folder) / "model.safetensors") for folder in folders)
        assert_same_weights(one, two)
        assert any(np.abs(one[name] - before[name]).max() > 1e-2 for name in one), "it learnt"
    assert not list(tmp_path.glob(".two*")), "a finished run leaves its workspace"
