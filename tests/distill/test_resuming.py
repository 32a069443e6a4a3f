"""A killed run that is started again, and two processes, end with the model of one unbroken run."""

import json
import subprocess
import sys

import numpy as np
import pytest
from safetensors.numpy import load_file

from haystack_distill.data.index import open_index
from haystack_distill.distill import training as distillation
from haystack_distill.distill.job import DistillationSettings, distill
from haystack_distill.distill.proof import open_student
from haystack_distill.distill.training import RetrieverTraining
from haystack_distill.students.bi_encoder import BiEncoder
from tests.kills import kill_at_first_checkpoint
from tests.torchrun import TWO_PROCESSES, assert_same_weights

SCRIPT = """
import json, sys
from pathlib import Path
from haystack_distill.distill import training as distillation
from haystack_distill.distill.job import DistillationSettings, distill
from haystack_distill.distill.proof import open_student
from haystack_distill.data.index import open_index
from haystack_distill.students.bi_encoder import BiEncoder
from haystack_distill.distill.training import RetrieverTraining
from haystack_distill.files.processes import process_number
from haystack_distill.data.training_set import TrainingSet

distillation.bf16_is_fast = lambda _: False  # sums that are taken in another order would differ visibly
rank, given, bert, folder, view, work, out = sys.argv[1:]
student = open_student(BiEncoder.load(bert, device="cpu"), bert)
settings = DistillationSettings(**json.loads(given), training=RetrieverTraining(6, 8, 1e-3, int(rank)))
training_set, index = TrainingSet.open(folder), open_index(Path(view))
found = distill(student, training_set, index, settings, Path(work), test=(), progress=False)
if process_number() == 0:
    found.student.save(out, create_model_card=False)
"""


def start(place, bert, training_set, name, launcher=(sys.executable,), *, lora_rank=0, settings=None):
    """Start a process that distils, or several."""
    (place / "train.py").write_text(SCRIPT)
    arguments = [place / "train.py", lora_rank, json.dumps(settings or {}), bert, training_set.folder, place / "view"]
    arguments += [place / name, place / f"{name}-m"]
    return subprocess.Popen([*launcher, *map(str, arguments)], stderr=subprocess.PIPE, text=True)


def distilled(place, bert, training_set, *, lora_rank=0, settings=None):
    """The weights after the same in this process."""
    student = open_student(BiEncoder.load(bert, device="cpu"), bert)
    how = DistillationSettings(**(settings or {}), training=RetrieverTraining(6, 8, 1e-3, lora_rank))
    before = {name: weight.clone() for name, weight in student.state_dict().items()}
    distill(student, training_set, open_index(place / "view"), how, place / "whole", test=(), progress=False)
    assert not all(np.allclose(weight, before[name], atol=1e-3) for name, weight in student.state_dict().items())
    student.save(str(place / "whole-m"), create_model_card=False)
    return load_file(place / "whole-m" / "model.safetensors")


@pytest.mark.usefixtures("index")
@pytest.mark.parametrize("lora_rank", [0, 2])
def test_a_killed_run_and_two_processes_end_with_the_same_model(lora_rank, bert, training_set, tmp_path, monkeypatch):
    if lora_rank:
        pytest.importorskip("peft", reason="the `lora` extra is not installed")
    monkeypatch.setattr(distillation, "bf16_is_fast", lambda _: False)
    whole = distilled(tmp_path, bert, training_set, lora_rank=lora_rank)
    process = start(tmp_path, bert, training_set, "killed", lora_rank=lora_rank)
    kill_at_first_checkpoint(process, tmp_path / "killed")
    assert start(tmp_path, bert, training_set, "killed", lora_rank=lora_rank).wait() == 0
    killed = load_file(tmp_path / "killed-m" / "model.safetensors")
    assert all(np.array_equal(whole[name], killed[name]) for name in whole)
    # torchrun with gloo: the batch is split and gradients are averaged, so it is the same optimisation.
    both = start(tmp_path, bert, training_set, "both", TWO_PROCESSES, lora_rank=lora_rank)
    assert both.wait() == 0, both.stderr.read()
    assert_same_weights(whole, load_file(tmp_path / "both-m" / "model.safetensors"))


@pytest.mark.usefixtures("index")
@pytest.mark.parametrize("settings", [{"loss": {"kl": 1.0, "contrastive": 1.0}}, {"update": "both"}])
def test_two_processes_share_other_losses_and_documents_that_move(settings, bert, training_set, tmp_path, monkeypatch):
    monkeypatch.setattr(distillation, "bf16_is_fast", lambda _: False)
    whole = distilled(tmp_path, bert, training_set, settings=settings)
    both = start(tmp_path, bert, training_set, "both", TWO_PROCESSES, settings=settings)
    assert both.wait() == 0, both.stderr.read()
    assert_same_weights(whole, load_file(tmp_path / "both-m" / "model.safetensors"))
