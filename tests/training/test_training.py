import logging
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path

import ir_measures
import numpy as np
import pytest
from datasets import Dataset
from huggingface_hub.utils import validate_repo_id
from safetensors.numpy import load_file
from sentence_transformers import SentenceTransformerTrainer
from sentence_transformers.base import model_card

from haystack_distill.align import training as alignment
from haystack_distill.align.job import align
from haystack_distill.align.settings import KaleSettings
from haystack_distill.align.training import TrainingSettings
from haystack_distill.evaluation.evaluators import IndexRetrievalEvaluator
from haystack_distill.evaluation.held_out import Queries
from haystack_distill.evaluation.quality import measure, ranking, search
from haystack_distill.files.runs import claim
from haystack_distill.students.bi_encoder import BiEncoder
from haystack_distill.students.cutting import cut, find_stack
from haystack_distill.students.token_table import make_token_table
from haystack_distill.training.batches import LengthBatchSampler
from haystack_distill.training.trainer import METRIC, last_checkpoint
from tests.conftest import sentences
from tests.kills import kill_at_first_checkpoint

FAST = TrainingSettings(epochs=3, batch_size=16)


@pytest.mark.parametrize("layers", [0, 1, 2])
def test_alignment_brings_the_student_to_the_teacher(layers, index, teacher, tmp_path):
    """It must beat the cut it started from on held-out sentences, and the teacher must stay as it was."""
    before = {name: value.clone() for name, value in teacher.model.state_dict().items()}
    aligned = align(
        index, teacher, KaleSettings(layers=layers, training=FAST), tmp_path / "run", test=(), progress=False
    )
    dev = sentences(40, seed=9)
    target = teacher.encode_queries(dev)

    def cosine(model):
        return float(np.mean(np.sum(model.encode(dev) * target, axis=1)))

    assert cosine(aligned.student) > cosine(aligned.cut_only)
    assert len(aligned.kept_layers) == layers
    assert len(aligned.training.history) == 3
    assert aligned.texts == {"queries": 0, "index_texts": 162, "general_texts": 0}
    if layers:
        assert find_stack(aligned.student).model.config._attn_implementation == "sdpa"
    assert all((value == before[name]).all() for name, value in teacher.model.state_dict().items())


def test_a_deep_student_is_given_a_part_of_the_texts_by_default(index, teacher, tmp_path, monkeypatch):
    """The default is some minutes: layers that cost more see fewer texts, and nothing embeds the others."""
    few = TrainingSettings(batch_size=16)
    monkeypatch.setattr(alignment, "LAYERED_WORK", 2e7)
    queries = Queries(sentences(20, seed=4))
    deep = KaleSettings(keep=(0, 2, 4, 5), training=few)
    aligned = align(index, teacher, deep, tmp_path / "run", queries, test=(), progress=False)
    count = sum(aligned.texts.values())
    assert count < alignment.WHOLE * 182
    assert aligned.texts["queries"] == 20
    assert len(np.load(tmp_path / "run" / "teacher_vectors.npy")) == count
    assert aligned.training.epochs == len(aligned.training.history) == 1
    again = KaleSettings(keep=(0, 2, 4, 5), training=TrainingSettings(batch_size=16, epochs=1))
    assert sum(align(index, teacher, again, tmp_path / "all", queries, test=(), progress=False).texts.values()) == 182
    shallow = align(
        index, teacher, KaleSettings(keep=(5,), training=few), tmp_path / "one", queries, test=(), progress=False
    )
    assert sum(shallow.texts.values()) > count


def test_a_heavy_student_takes_small_steps_unless_it_is_told_otherwise(teacher, tmp_path, monkeypatch):
    student = cut(teacher, (0, 5))

    def rates(student, **settings):
        found = alignment._arguments(student, ["a text"], tmp_path, TrainingSettings(**settings), False)
        return [found.learning_rate, *found.learning_rate_mapping.values()]

    assert rates(student) == [1e-3, 1e-2]
    monkeypatch.setattr(alignment, "HEAVY", 1)
    assert rates(student) == pytest.approx([1e-4, 1e-3])
    assert rates(student, learning_rate=5e-5, embedding_learning_rate=2e-5) == [5e-5, 2e-5]
    table = make_token_table(teacher)
    assert rates(table) == [1e-2]
    assert rates(table, embedding_learning_rate=1e-3) == [1e-3]
    assert rates(table, learning_rate=2e-3, embedding_learning_rate=1e-3) == [2e-3]


def test_the_layers_that_are_named_stay(index, teacher, tmp_path):
    settings = KaleSettings(keep=(1, 4), training=TrainingSettings(epochs=1))
    assert align(index, teacher, settings, tmp_path / "a", test=(), progress=False).kept_layers == (1, 4)
    paper = KaleSettings(keep="kale", layers=2, loss={"kale": 1.0}, training=TrainingSettings(epochs=1))
    assert align(index, teacher, paper, tmp_path / "b", test=(), progress=False).kept_layers == (0, 5)


def test_unknown_layer_maps_are_refused(index, teacher, tmp_path):
    with pytest.raises(ValueError, match="keep='qed' is not known"):
        align(index, teacher, KaleSettings(keep="qed"), tmp_path / "run", test=(), progress=False)


def test_queries_alone_can_be_aligned_on(index, teacher, tmp_path):
    texts = sentences(30, seed=4)
    queries = Queries(texts, {f"q{number}": text for number, text in enumerate(sentences(10, seed=8))})
    settings = KaleSettings(layers=0, index_text=False, training=FAST)
    aligned = align(index, teacher, settings, tmp_path / "run", queries, test=(), progress=False)
    assert aligned.texts == {"queries": 30, "index_texts": 0, "general_texts": 0}


def test_nothing_to_align_on(index, teacher, tmp_path):
    with pytest.raises(ValueError, match="too little to align on: 0 texts"):
        align(index, teacher, KaleSettings(index_text=False), tmp_path / "run", test=(), progress=False)


def test_a_workspace_is_not_shared_by_different_runs(tmp_path):
    claim(tmp_path / "run", {"settings": asdict(KaleSettings(layers=1)), "texts": "a"})
    claim(tmp_path / "run", {"settings": asdict(KaleSettings(layers=1)), "texts": "a"})
    with pytest.raises(ValueError, match="had other settings"):
        claim(tmp_path / "run", {"settings": asdict(KaleSettings(layers=2)), "texts": "a"})
    with pytest.raises(ValueError, match="had other texts"):
        claim(tmp_path / "run", {"settings": asdict(KaleSettings(layers=1)), "texts": "b"})


def test_half_written_checkpoints_are_not_gone_on_from(tmp_path):
    state, random = "trainer_state.json", "rng_state.pth"
    for step, files in (
        (4, {state: "{}", random: ""}),
        (8, {"model.safetensors": ""}),
        (12, {}),
        (16, {state: "{}"}),
        (20, {state: '{"epoch": ', random: ""}),
    ):
        (tmp_path / f"checkpoint-{step}").mkdir()
        for file, content in files.items():
            (tmp_path / f"checkpoint-{step}" / file).write_text(content)
    assert last_checkpoint(tmp_path) == str(tmp_path / "checkpoint-4")
    assert [folder.name for folder in tmp_path.iterdir()] == ["checkpoint-4"]


SCRIPT = """
import sys, time
from pathlib import Path
from haystack_distill.data.index import open_index
from haystack_distill.files.runs import claim
from haystack_distill.align.job import align
from haystack_distill.align.settings import KaleSettings
from haystack_distill.students.bi_encoder import BiEncoder
from haystack_distill.align.training import TrainingSettings
index, teacher, work, out, slow = sys.argv[1:]
if slow == "slow":  # gives the test time to kill between two checkpoints
    from haystack_distill.losses.alignment import AlignmentLoss
    fast = AlignmentLoss.forward
    AlignmentLoss.forward = lambda *a, **k: (time.sleep(0.05), fast(*a, **k))[1]
settings = KaleSettings(keep=(0, 5), training=TrainingSettings(epochs=4, batch_size=16, seed=3))
aligned = align(open_index(index), BiEncoder.load(teacher, device="cpu"), settings, Path(work), test=(), progress=False)
aligned.student.save(out, create_model_card=False)
"""


@pytest.mark.usefixtures("index")
def test_a_killed_run_goes_on_and_ends_with_the_same_model(bert, tmp_path):
    """kill -9 after the first checkpoint; the second run goes on from it; weights as in an unbroken run."""

    def run(name, speed="fast", **kwargs):
        arguments = [tmp_path / "view", bert, tmp_path / f"{name}.run", tmp_path / name, speed]
        return subprocess.Popen([sys.executable, "-c", SCRIPT, *map(str, arguments)], **kwargs)

    broken = run("broken", "slow")
    kill_at_first_checkpoint(broken, tmp_path / "broken.run")
    assert not (tmp_path / "broken").exists()
    assert run("broken").wait() == 0
    assert run("unbroken").wait() == 0
    weights = [load_file(tmp_path / name / "model.safetensors") for name in ("broken", "unbroken")]
    assert weights[0].keys() == weights[1].keys()
    assert all(np.array_equal(weights[0][key], weights[1][key]) for key in weights[0])


@pytest.fixture
def scripted(index, teacher, tmp_path, monkeypatch):
    """Alignments whose dev measure is written down; None in its place interrupts the run."""

    def run(name, measures):
        left = iter([0.0, *measures])  # the first is of the untrained student

        def evaluate(*_, **__):
            value = next(left)
            if value is None:
                raise KeyboardInterrupt
            return {METRIC: value}

        monkeypatch.setattr(IndexRetrievalEvaluator, "__call__", evaluate)
        settings = KaleSettings(keep=(5,), training=TrainingSettings(epochs=9, batch_size=32))
        return align(index, teacher, settings, tmp_path / name, test=(), progress=False)

    return run


FALLING = [0.9, 0.8, 0.7, 0.6, 0.5]


def test_training_ends_when_dev_gets_no_better_and_the_best_checkpoint_is_kept(scripted):
    aligned, first = scripted("whole", FALLING), scripted("first", [0.9, *[0.1] * 4])
    assert [entry["dev_ndcg@10"] for entry in aligned.training.history] == FALLING
    kept, of_first = (one.student.state_dict() for one in (aligned, first))
    assert all((kept[key] == of_first[key]).all() for key in kept)


def test_a_student_that_training_makes_worse_stays_as_it_was_cut(index, teacher, tmp_path, caplog):
    """Much of the teacher is left, and the rate is far too large for it."""
    training = TrainingSettings(epochs=1, learning_rate=0.5, embedding_learning_rate=0.5)
    settings = KaleSettings(keep=(0, 1, 2, 3, 4), training=training)
    with caplog.at_level(logging.INFO):
        aligned = align(index, teacher, settings, tmp_path / "run", test=(), progress=False)
    assert "Training made the student worse on dev" in caplog.text
    texts = sentences(5, seed=9)
    assert np.allclose(aligned.student.encode(texts), aligned.cut_only.encode(texts), atol=1e-6)


def test_a_run_that_goes_on_is_no_more_patient(scripted):
    """Three evaluations without gain before the kill count."""
    whole = scripted("whole", [0.3, 0.9, 0.8, 0.7, 0.6, 0.5])
    with pytest.raises(KeyboardInterrupt):
        scripted("broken", [0.3, 0.9, 0.8, 0.7, None])
    went_on = scripted("broken", [0.6, 0.5])
    assert went_on.training.history == whole.training.history
    weights = [one.student.state_dict() for one in (whole, went_on)]
    assert all((weights[0][key] == weights[1][key]).all() for key in weights[0])


def test_a_run_that_had_stopped_early_is_not_trained_further(scripted, monkeypatch):
    """Killed after its last checkpoint; another epoch might happen to be better."""

    def killed(*_, **__):
        raise KeyboardInterrupt

    before = scripted("whole", FALLING)
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(SentenceTransformerTrainer, "_finalize_training", killed)
        scripted("broken", FALLING)
    after = scripted("broken", [])
    assert after.training.history == before.training.history
    weights = [one.student.state_dict() for one in (before, after)]
    assert all((weights[0][key] == weights[1][key]).all() for key in weights[0])


def test_batches_hold_texts_of_similar_length_and_every_text_once():
    texts = [" ".join(["word"] * (1 + number % 40)) for number in range(1000)]
    sampler = LengthBatchSampler(Dataset.from_dict({"query": texts}), batch_size=10, drop_last=False, seed=1)
    batches = list(sampler)
    assert sorted(number for batch in batches for number in batch) == list(range(1000))
    assert len(sampler) == len(batches) == 100
    spread = np.mean([np.ptp([len(texts[number]) for number in batch]) for batch in batches])
    assert spread < 25
    assert list(sampler) == batches
    sampler.set_epoch(1)
    assert list(sampler) != batches


def test_the_dev_measure_is_ndcg_against_the_index_as_it_is(index, teacher):
    """The evaluator must not embed documents: against an independent ranking with the stored vectors."""
    queries = {f"q{number}": text for number, text in enumerate(sentences(12, seed=6))}
    qrels = {query_id: {index.ids[number]: 1} for number, query_id in enumerate(queries)}
    found = search(index, list(queries), teacher.encode_queries(list(queries.values())))
    assert all(len(ranking(scores)) == len(index) for scores in found.values())
    expected = measure(found, qrels).mean()
    value = IndexRetrievalEvaluator(queries, qrels, index)(teacher.model)[METRIC]
    assert value == pytest.approx(expected, abs=1e-6)


def test_the_workspace_of_an_output_is_beside_it():
    from haystack_distill.files.runs import workspace_for

    assert workspace_for("models/new") == Path("models/.new.run")


def test_the_hub_is_not_asked_about_a_local_teacher(index, bert, tmp_path, monkeypatch):
    """Each checkpoint has a model card, for which the last two folders of the teacher's path were looked up there."""
    asked = []

    def ask(name, *_, **__):
        validate_repo_id(name)  # paths of three parts and more are no names, and are not sent
        asked.append(name)
        raise OSError

    monkeypatch.setattr(model_card, "get_model_info", ask)
    monkeypatch.chdir(Path(bert).parents[1])
    teacher = BiEncoder.load(str(Path(bert).relative_to(Path.cwd())), device="cpu")  # reads like a name on the hub
    assert asked == []
    teacher.model.model_card_data.local_files_only = False  # as of a model that something else loaded
    for layers in (0, 1):
        settings = KaleSettings(layers=layers, training=TrainingSettings(epochs=1))
        align(index, teacher, settings, tmp_path / str(layers), test=(), progress=False)
    assert asked == []


def test_the_dev_measure_is_what_a_test_reports(index, teacher):
    """Grades count, and those below 1 don't: nDCG@10 from its definition, the grade over log2 of the place."""
    texts = sentences(8, seed=6)
    queries = {f"q{number}": text for number, text in enumerate(texts)}
    random = np.random.default_rng(3)
    scores = teacher.encode_queries(texts) @ np.asarray(index.ranking_vectors).T
    qrels, expected = {}, []
    for query_id, row in zip(queries, scores, strict=True):
        order = np.argsort(-row)
        places = random.choice(15, 6, replace=False)
        qrels[query_id] = dict(zip((index.ids[order[place]] for place in places), [3, 2, 1, 1, 0, -1], strict=True))
        gains = [max(0, qrels[query_id].get(index.ids[column], 0)) for column in order[:10]]
        ideal = sum(gain / np.log2(place + 2) for place, gain in enumerate([3, 2, 1, 1]))
        expected.append(sum(gain / np.log2(place + 2) for place, gain in enumerate(gains)) / ideal)
    value = IndexRetrievalEvaluator(queries, qrels, index)(teacher.model)[METRIC]
    assert value == pytest.approx(np.mean(expected), abs=1e-6)
    run = {key: dict(zip(index.ids, row.tolist(), strict=True)) for key, row in zip(queries, scores, strict=True)}
    assert value == pytest.approx(
        ir_measures.calc_aggregate([ir_measures.nDCG @ 10], qrels, run)[ir_measures.nDCG @ 10]
    )


def test_a_part_of_the_dev_measure_keeps_its_grades(index, teacher):
    queries = {f"q{number}": text for number, text in enumerate(sentences(12, seed=6))}
    qrels = {query_id: {index.ids[number]: 2, index.ids[number + 1]: 1} for number, query_id in enumerate(queries)}
    part = IndexRetrievalEvaluator(queries, qrels, index).part(4)
    assert part.qrels == {query_id: qrels[query_id] for query_id in ("q0", "q3", "q6", "q9")}
    assert part(teacher.model) == IndexRetrievalEvaluator(queries, part.qrels, index)(teacher.model)
