"""Readers learn the answers of a training set: tiny random ones of each family, and a GGUF file."""

import json
import subprocess
import sys
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file
from transformers import AutoModelForCausalLM

from haystack_distill import ReaderFineTuner
from haystack_distill.data.training_set import Row, write_training_set
from haystack_distill.files import runs
from haystack_distill.teachers import answers as training
from haystack_distill.teachers import fine_tuning, readers
from haystack_distill.teachers.answers import MASKED, AnswerSettings
from haystack_distill.teachers.fine_tuning import (
    FineTuningSettings,
    check_trainable,
    fine_tune_reader,
    lessons_of,
    mean_log_likelihood,
)
from haystack_distill.teachers.readers import load_reader
from haystack_distill.teachers.signals import SIGNALS
from tests.conftest import WORDS, sentences
from tests.kills import kill_at_first_checkpoint

FAST = AnswerSettings(epochs=3, batch_size=8, learning_rate=3e-3)


def question(number: int, *, answers: list[str] | None = None) -> Row:
    """A question whose answer is one word, in the second of its three passages."""
    random = np.random.default_rng(number)
    answer = str(random.choice(WORDS[:6]))
    passages = [text.replace(answer, "other") for text in sentences(3, seed=number, length=5)]
    passages[1] += f" It is {answer}."
    return Row(
        f"q{number}",
        f"What is it, {number}?",
        [answer] if answers is None else answers,
        [f"d{number}-{place}" for place in range(3)],
        passages,
        [3.0, 2.0, 1.0],
    )


@pytest.fixture(scope="module")
def training_set(tmp_path_factory) -> str:
    folder = tmp_path_factory.mktemp("answers") / "set"
    write_training_set(folder, [question(number) for number in range(60)])
    return str(folder)


@pytest.mark.parametrize(("family", "kind"), [("llama", "pdist"), ("llama", "loop"), ("t5", "dkrr"), ("bart", "pdist")])
def test_answers_of_held_out_questions_become_likelier(family, kind, training_set, reader_folder, tmp_path):
    """Judged by the reader that is loaded from the new folder, on questions that were never trained on."""
    settings = FineTuningSettings(signal=kind, training=FAST)
    model = reader_folder(family)
    figures = fine_tune_reader(training_set, model, tmp_path / "new", settings, progress=False)
    losses = [entry["held_out_loss"] for entry in figures["history"]]
    assert losses[-1] < losses[0]
    assert figures["better"]
    unseen = [question(number) for number in range(1000, 1010)]
    before, after = load_reader(model), load_reader(str(tmp_path / "new"))
    prompts = [
        before.encode(SIGNALS[kind].prompt_for(before.kind), row.query, row.documents[1:2], row.answers[0])
        for row in unseen
    ]
    assert mean_log_likelihood(after, prompts) > mean_log_likelihood(before, prompts) + 0.2
    assert json.loads((tmp_path / "new" / "fine_tuning.json").read_text())["rows"]["trained_on"] == 54
    assert not list(tmp_path.glob(".new*"))


@pytest.mark.parametrize("family", ["llama", "t5", "bart"])
def test_the_loss_is_the_likelihood_that_scores(family, reader, monkeypatch):
    """The trainer's loss on a batch against the reader's own log-likelihoods, the end token among them."""
    monkeypatch.setattr(training, "bf16_is_fast", lambda _: False)
    loaded = reader(family)
    rows = [question(number) for number in range(5)]
    lessons = lessons_of(loaded, rows, FineTuningSettings(signal="loop"), "set")
    prompts = [*lessons.train, *lessons.held_out]
    expected = np.concatenate([values for _, values in loaded.log_likelihoods(prompts)]).mean()
    if family == "llama":
        batch = training._pad_causal(training._rows(loaded, prompts))
        loss = loaded.model(**batch).loss
    else:
        batch = training._FusedCollator(loaded)(training._rows(loaded, prompts))
        arguments = training._arguments(loaded.model, Path("unused"), AnswerSettings(), False)
        trainer = training._FusionTrainer(model=loaded.model, args=arguments, eval_dataset=[])
        loss = trainer.compute_loss(loaded.model, batch)
    assert -loss.item() == pytest.approx(float(expected), rel=1e-4)


def test_only_the_answer_and_the_end_have_labels(reader):
    loaded = reader("llama")
    row = question(3)
    (prompt,) = lessons_of(loaded, [row, row], FineTuningSettings(), "set").train
    (made,) = training._rows(loaded, [prompt])
    labels = [token for token in made["labels"] if token != MASKED]
    assert loaded.tokenizer.decode(labels[:-1]).strip() == row.answers[0]
    assert labels[-1] == loaded.tokenizer.eos_token_id
    assert made["input_ids"][-len(labels) :] == labels


def test_a_lone_passage_must_hold_an_answer(reader):
    """Whatever the case and the spaces; with another signal all passages are read together."""
    loaded = reader("llama")
    row = question(1, answers=["Market  Garden", "window"])
    row.documents[:] = ["nothing here", "the market\ngarden", "a window"]
    lessons = lessons_of(loaded, [row, row], FineTuningSettings(), "set")
    assert [loaded.tokenizer.decode([prompt.ids[place] for place in prompt.target()]) for prompt in lessons.train] == [
        " Market  Garden</s>",
        " window</s>",
    ]
    joint = lessons_of(loaded, [row, row], FineTuningSettings(signal="loop"), "set")
    assert len(joint.train) == 1
    assert (
        len(lessons_of(loaded, [row, row], FineTuningSettings(signal="loop", passages=1), "set").train[0].passages) == 1
    )


def test_rows_that_teach_nothing_are_counted(reader):
    rows = [question(1), question(2), question(3, answers=[]), question(4, answers=[" "]), question(5, answers=["xyz"])]
    lessons = lessons_of(reader("llama"), rows, FineTuningSettings(), "set")
    assert lessons.left_out == {"without_answers": 2, "without_answer_in_passages": 1, "unusable": 0}
    assert lessons.questions == (1, 1)


def test_sets_without_answers_are_refused_with_the_way_out(reader, reader_folder, tmp_path):
    write_training_set(tmp_path / "set", [question(number, answers=[]) for number in range(3)])
    with pytest.raises(ValueError, match="has no answers.*signal 'question'"):
        fine_tune_reader(tmp_path / "set", reader_folder("llama"), tmp_path / "new", progress=False)
    far = [question(number, answers=["xyz"]) for number in range(3)]
    with pytest.raises(ValueError, match="0 can be trained on.*signal='loop'"):
        lessons_of(reader("llama"), far, FineTuningSettings(), "set")
    with pytest.raises(ValueError, match="signal='question' asks for no answer"):
        lessons_of(reader("llama"), far, FineTuningSettings(signal="question"), "set")
    assert not (tmp_path / "new").exists()


def test_an_unfinished_run_is_not_gone_on_from_with_other_settings(training_set, reader_folder, tmp_path, monkeypatch):
    model = reader_folder("llama")
    monkeypatch.setattr("haystack_distill.teachers.fine_tuning.train_reader", lambda *_, **__: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        fine_tune_reader(training_set, model, tmp_path / "new", progress=False)
    (tmp_path / ".new.run" / "checkpoints" / "checkpoint-1").mkdir(parents=True)
    with pytest.raises(ValueError, match="had other settings"):
        fine_tune_reader(training_set, model, tmp_path / "new", FineTuningSettings(training=FAST), progress=False)


def test_lora_moves_few_weights_and_is_merged(training_set, reader_folder, tmp_path):
    pytest.importorskip("peft", reason="the `lora` extra is not installed")
    for family in ("llama", "t5"):
        settings = FineTuningSettings(training=AnswerSettings(epochs=2, learning_rate=2e-2, lora_rank=2))
        model, output = reader_folder(family), tmp_path / family
        figures = fine_tune_reader(training_set, model, output, settings, progress=False)
        assert figures["better"]
        before, after = (load_file(Path(folder) / "model.safetensors") for folder in (model, output))
        assert before.keys() == after.keys()
        moved = {name for name in before if not np.array_equal(before[name], after[name])}
        assert moved
        assert not any("embed" in name or "norm" in name for name in moved)


def test_lora_without_peft_says_what_to_install(training_set, reader_folder, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "peft", None)
    settings = FineTuningSettings(training=AnswerSettings(lora_rank=2))
    with pytest.raises(ImportError, match=r"haystack-distill\[lora\]"):
        fine_tune_reader(training_set, reader_folder("llama"), tmp_path / "new", settings, progress=False)
    assert not list(tmp_path.glob(".new*")), "a run without LoRA must not be hindered"


def test_packed_weights_are_refused_and_those_of_a_gguf_file_are_unpacked(tmp_path):
    """transformers can't save what it keeps packed; as `load_reader` loads a GGUF file, it can be trained and saved."""
    pytest.importorskip("gguf", reason="the `gguf` extra is not installed")
    write_gguf(tmp_path / "tiny.gguf")
    packed = AutoModelForCausalLM.from_pretrained(tmp_path, gguf_file="tiny.gguf")
    with pytest.raises(ValueError, match=r"weights of reader are quantised \(gguf\).*full-precision"):
        check_trainable(packed, "reader")
    arguments = {"gguf_file": "tiny.gguf"}
    model = AutoModelForCausalLM.from_pretrained(tmp_path, **arguments, **readers._unpacked(arguments))
    check_trainable(model, "reader")
    model.save_pretrained(tmp_path / "saved")
    ids = torch.tensor([[1, 2, 3, 4]])
    loaded = AutoModelForCausalLM.from_pretrained(tmp_path / "saved")
    torch.testing.assert_close(loaded(ids).logits, model(ids).logits)


def write_gguf(file: Path) -> None:
    """A random llama of one layer in 8 bits."""
    from gguf import GGMLQuantizationType, GGUFWriter, quants

    random = np.random.default_rng(0)
    writer = GGUFWriter(file, "llama")
    writer.add_block_count(1)
    writer.add_context_length(64)
    writer.add_embedding_length(32)
    writer.add_feed_forward_length(64)
    writer.add_head_count(4)
    writer.add_head_count_kv(4)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_vocab_size(20)
    square = {f"blk.0.attn_{name}": (32, 32) for name in ("q", "k", "v", "output")}
    feed_forward = {"blk.0.ffn_gate": (64, 32), "blk.0.ffn_up": (64, 32), "blk.0.ffn_down": (32, 64)}
    for name, shape in {"token_embd": (20, 32), "output": (20, 32), **square, **feed_forward}.items():
        weights = random.normal(size=shape).astype(np.float32)
        kind = GGMLQuantizationType.Q8_0
        writer.add_tensor(f"{name}.weight", quants.quantize(weights, kind), raw_dtype=kind)
    for name in ("blk.0.attn_norm", "blk.0.ffn_norm", "output_norm"):
        writer.add_tensor(f"{name}.weight", np.ones(32, dtype=np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


SCRIPT = """
import sys, time
from haystack_distill.teachers.fine_tuning import FineTuningSettings, fine_tune_reader
from haystack_distill.teachers import answers
rows, model, output, slow = sys.argv[1:]
if slow == "slow":  # gives the test time to kill between two checkpoints
    fast = answers._FusionTrainer.compute_loss
    answers._FusionTrainer.compute_loss = lambda *a, **k: (time.sleep(0.05), fast(*a, **k))[1]
settings = FineTuningSettings(training=answers.AnswerSettings(epochs=4, learning_rate=3e-3, seed=3))
fine_tune_reader(rows, model, output, settings, progress=False)
"""


def test_a_run_that_was_killed_when_all_was_done_is_ended(training_set, reader_folder, tmp_path, monkeypatch):
    """Its output is there, and so is its workspace, which nobody would remove."""
    settings = FineTuningSettings(training=AnswerSettings(epochs=1, batch_size=8))
    again = partial(fine_tune_reader, training_set, reader_folder("llama"), tmp_path / "new", settings, progress=False)
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(runs, "_remove", lambda _: (_ for _ in ()).throw(KeyboardInterrupt))
        again()
    assert (tmp_path / "new").is_dir()
    assert (tmp_path / ".new.run").is_dir()
    monkeypatch.setattr(fine_tuning, "train_reader", lambda *_, **__: pytest.fail("it was trained again"))
    assert again() == json.loads((tmp_path / "new" / "fine_tuning.json").read_text())
    assert not (tmp_path / ".new.run").exists()
    with pytest.raises(FileExistsError, match="exists already"):
        again()


def test_a_killed_run_goes_on_and_ends_with_the_same_reader(training_set, reader_folder, tmp_path):
    """kill -9 after the first checkpoint; dropout is on, so the random generators must go on too."""
    model = reader_folder("t5")

    def run(name, speed):
        arguments = [training_set, model, str(tmp_path / name), speed]
        return subprocess.Popen([sys.executable, "-c", SCRIPT, *arguments])

    broken = run("broken", "slow")
    kill_at_first_checkpoint(broken, tmp_path / ".broken.run")
    assert not (tmp_path / "broken").exists()
    # Both in processes of their own: sums depend on the number of threads.
    assert run("broken", "fast").wait() == run("unbroken", "fast").wait() == 0
    weights = [load_file(tmp_path / name / "model.safetensors") for name in ("broken", "unbroken")]
    assert all(np.array_equal(weights[0][key], weights[1][key]) for key in weights[0])


def test_the_component_survives_serialisation_and_trains(training_set, reader_folder, tmp_path):
    tuner = ReaderFineTuner(
        model=reader_folder("t5"), output=str(tmp_path / "new"), epochs=1, learning_rate=3e-3, progress_bar=False
    )
    restored = ReaderFineTuner.from_dict(tuner.to_dict())
    assert restored.to_dict() == tuner.to_dict()
    result = restored.run(training_set=training_set)
    assert result["model_path"] == str(tmp_path / "new")
    assert result["metrics"]["held_out"]["after"] > result["metrics"]["held_out"]["before"]
    with pytest.raises(FileExistsError, match="exists already"):
        restored.run(training_set=training_set)
    with pytest.raises(ValueError, match="must be at least 1"):
        ReaderFineTuner(model="m", output="o", epochs=0)
