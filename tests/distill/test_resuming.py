"""A killed run that is started again, and two processes, end with the model of one unbroken run."""

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

SCRIPT = """
import sys
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
rank, bert, folder, view, work, out = sys.argv[1:]
student = open_student(BiEncoder.load(bert, device="cpu"), bert)
settings = DistillationSettings(training=RetrieverTraining(6, 8, 1e-3, int(rank)))
training_set, index = TrainingSet.open(folder), open_index(Path(view))
found = distill(student, training_set, index, settings, Path(work), test=(), progress=False)
if process_number() == 0:
    found.student.save(out, create_model_card=False)
"""


@pytest.mark.usefixtures("index")
@pytest.mark.parametrize("lora_rank", [0, 2])
def test_a_killed_run_and_two_processes_end_with_the_same_model(lora_rank, bert, training_set, tmp_path, monkeypatch):
    if lora_rank:
        pytest.importorskip("peft", reason="the `lora` extra is not installed")
    script = tmp_path / "train.py"
    script.write_text(SCRIPT)

    def start(name, *launcher):
        paths = [
            script,
            lora_rank,
            bert,
            training_set.folder,
            tmp_path / "view",
            tmp_path / name,
            tmp_path / f"{name}-m",
        ]
        return subprocess.Popen([sys.executable, *launcher, *map(str, paths)], stderr=subprocess.PIPE, text=True)

    monkeypatch.setattr(distillation, "bf16_is_fast", lambda _: False)
    student = open_student(BiEncoder.load(bert, device="cpu"), bert)
    settings = DistillationSettings(training=RetrieverTraining(6, 8, 1e-3, lora_rank))
    index = open_index(tmp_path / "view")
    distill(student, training_set, index, settings, tmp_path / "whole", test=(), progress=False)
    student.save(str(tmp_path / "whole-m"), create_model_card=False)
    process = start("killed")
    kill_at_first_checkpoint(process, tmp_path / "killed")
    assert start("killed").wait() == 0
    # torchrun with gloo: the batch is split and gradients are averaged, so it is the same optimisation.
    both = start("both", "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2")
    assert both.wait() == 0, both.stderr.read()
    whole, killed, both = (
        load_file(tmp_path / f"{name}-m" / "model.safetensors") for name in ("whole", "killed", "both")
    )
    assert all(np.array_equal(whole[name], killed[name]) for name in whole)
    # A key's bias adds the same to all scores of a query: its gradient is mere rounding, which Adam scales up.
    for name in (name for name in whole if not name.endswith("key.bias")):
        np.testing.assert_allclose(whole[name], both[name], rtol=1e-2, atol=1e-3, err_msg=name)
