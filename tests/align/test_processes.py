"""torchrun: several processes share each batch, so that alignment is the same optimisation as in one."""

import json
import subprocess

import pytest
from safetensors.numpy import load_file

from haystack_distill.align import training as alignment
from haystack_distill.align.job import align
from haystack_distill.align.settings import KaleSettings
from haystack_distill.align.training import TrainingSettings
from haystack_distill.losses import index_ranking
from tests.torchrun import TWO_PROCESSES, assert_same_weights

SCRIPT = """
import json, sys
from pathlib import Path
from haystack_distill.align import training as alignment
from haystack_distill.align.job import align
from haystack_distill.align.settings import KaleSettings
from haystack_distill.align.training import TrainingSettings
from haystack_distill.data.index import open_index
from haystack_distill.files.processes import process_number
from haystack_distill.losses import index_ranking
from haystack_distill.students.bi_encoder import BiEncoder

alignment.bf16_is_fast = lambda _: False  # sums that are taken in another order would differ visibly
index, teacher, work, out, settings, batch_size, sampled = sys.argv[1:]
if sampled == "True":
    index_ranking.ALL_UP_TO, index_ranking.NEIGHBOURS, index_ranking.RANDOM = 10, 2, 4
settings = json.loads(settings)
settings |= {"keep": settings["keep"] and tuple(settings["keep"])}
settings = KaleSettings(**settings, training=TrainingSettings(epochs=4, batch_size=int(batch_size)))
view, encoder = open_index(Path(index)), BiEncoder.load(teacher, device="cpu")
aligned = align(view, encoder, settings, Path(work), test=(), progress=False)
if process_number() == 0:
    aligned.student.save(out, create_model_card=False)
"""


@pytest.mark.parametrize(("keep", "sampled"), [((0, 5), False), ((5,), True), (None, False)])
def test_two_processes_make_the_same_student_as_one(keep, sampled, index, teacher, bert, tmp_path, monkeypatch):
    """Of 160 texts every batch is whole. A large index, made small here, is ranked by a sample for each batch."""
    settings = {"layers": len(keep or ()), "keep": keep, "max_texts": 160}
    batch_size = 16 if keep else 8
    (tmp_path / "align.py").write_text(SCRIPT)
    arguments = [tmp_path / "view", bert, tmp_path / "two.run", tmp_path / "two", json.dumps(settings), batch_size]
    arguments.append(sampled)
    done = subprocess.run(
        [*TWO_PROCESSES, *map(str, [tmp_path / "align.py", *arguments])], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    monkeypatch.setattr(alignment, "bf16_is_fast", lambda _: False)
    for name, value in {"ALL_UP_TO": 10, "NEIGHBOURS": 2, "RANDOM": 4}.items() if sampled else ():
        monkeypatch.setattr(index_ranking, name, value)
    how = KaleSettings(**settings, training=TrainingSettings(epochs=4, batch_size=batch_size))
    aligned = align(index, teacher, how, tmp_path / "one.run", test=(), progress=False)
    assert not aligned.stays_untrained
    aligned.student.save(str(tmp_path / "one"), create_model_card=False)
    one, two = (load_file(next((tmp_path / name).rglob("model.safetensors"))) for name in ("one", "two"))
    assert_same_weights(one, two)


def test_the_command_under_torchrun(beir, bert, tmp_path):
    """One process embeds, proves and writes."""
    (tmp_path / "run.py").write_text("from haystack_distill.cli import app; app()\n")
    arguments = ["align", beir, "--model", bert, "--output", tmp_path / "out", "--epochs", "1", "--no-progress"]
    arguments += ["--export", "onnx-fp32"]
    done = subprocess.run(
        [*TWO_PROCESSES, *map(str, [tmp_path / "run.py", *arguments])], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("It takes the place of the query embedder") == 1
    assert {"metrics.json", "report.html", "onnx-fp32"} <= {path.name for path in (tmp_path / "out").iterdir()}
    assert not list(tmp_path.glob(".out*")), "a finished run leaves its workspace"
