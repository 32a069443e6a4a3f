"""torchrun: several processes share each batch, so that a reader learns as in one."""

import json
import shutil
import subprocess

import pytest
from safetensors.numpy import load_file

from haystack_distill.data.training_set import write_training_set
from haystack_distill.teachers import answers as training
from haystack_distill.teachers.answers import AnswerSettings
from haystack_distill.teachers.fine_tuning import FineTuningSettings, fine_tune_reader
from tests.teachers.test_fine_tuning import question
from tests.torchrun import TWO_PROCESSES, assert_same_weights

SCRIPT = """
import json, sys
from haystack_distill.teachers import answers as training
from haystack_distill.teachers.answers import AnswerSettings
from haystack_distill.teachers.fine_tuning import FineTuningSettings, fine_tune_reader

training.bf16_is_fast = lambda _: False  # sums that are taken in another order would differ visibly
rows, model, out, how = sys.argv[1:]
settings = FineTuningSettings(signal="loop", training=AnswerSettings(**json.loads(how)))
fine_tune_reader(rows, model, out, settings, device="cpu", progress=False)
"""


@pytest.mark.parametrize("family", ["llama", "t5"])
def test_two_processes_teach_the_same_reader_as_one(family, reader_folder, tmp_path, monkeypatch):
    """Answers have one word or several, so that the halves of a batch have other numbers of tokens."""
    several = ["river stone garden window"]
    rows = [question(number, answers=None if number % 3 else several) for number in range(35)]
    write_training_set(tmp_path / "set", rows)
    folder = shutil.copytree(reader_folder(family), tmp_path / "reader")
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"dropout_rate": 0.0}))  # T5's, drawn in each process
    how = {"epochs": 2, "batch_size": 8, "learning_rate": 3e-3}
    (tmp_path / "teach.py").write_text(SCRIPT)
    arguments = [tmp_path / "teach.py", tmp_path / "set", folder, tmp_path / "two", json.dumps(how)]
    done = subprocess.run([*TWO_PROCESSES, *map(str, arguments)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    monkeypatch.setattr(training, "bf16_is_fast", lambda _: False)
    settings = FineTuningSettings(signal="loop", training=AnswerSettings(**how))
    one = fine_tune_reader(tmp_path / "set", str(folder), tmp_path / "one", settings, progress=False)
    two = json.loads((tmp_path / "two" / "fine_tuning.json").read_text())
    assert one["rows"]["trained_on"] == 32, "every batch is whole"
    assert one["better"]
    assert two["held_out"] == pytest.approx(one["held_out"], abs=1e-3)
    assert_same_weights(*(load_file(tmp_path / name / "model.safetensors") for name in ("one", "two")))
    assert not list(tmp_path.glob(".two*")), "a finished run leaves its workspace"
