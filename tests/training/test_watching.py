"""Trackers and callbacks of transformers, through every component that trains, and runs that go on with others."""

import os
from pathlib import Path
from typing import ClassVar

import pytest
from haystack import Pipeline
from haystack.components.retrievers.in_memory import InMemoryEmbeddingRetriever
from transformers import EarlyStoppingCallback, TrainerCallback
from transformers.integrations import integration_utils

from haystack_distill import (
    DistillationLoop,
    DistilledRetriever,
    KaleAligner,
    KaleQueryEncoder,
    ReaderFineTuner,
    ResponseDistiller,
    RetrieverDistiller,
    TrainingSetBuilder,
)
from haystack_distill.data.training_set import Row, write_training_set
from haystack_distill.evaluation.proof import read_figures
from haystack_distill.responses.evaluator import METRIC
from haystack_distill.training import watching
from tests.conftest import sentences


class Seen(TrainerCallback):
    """What was logged, of every training since the list was emptied; given as a class, the trainer makes it."""

    logs: ClassVar[list[dict]] = []

    def on_log(self, *_, logs, **__):
        Seen.logs.append(logs)


class Interrupting(TrainerCallback):
    """Ctrl-C after the first checkpoint."""

    def on_save(self, *_, **__):
        raise KeyboardInterrupt


class Tracker(Seen):
    """Stands where a tracker's own callback does; notes where TensorBoard's would write."""

    places: ClassVar[list[str | None]] = []

    def on_train_begin(self, *_, **__):
        Tracker.places.append(os.environ.get(watching.TENSORBOARD_PLACE))


@pytest.fixture(autouse=True)
def trackers(monkeypatch):
    """Two trackers are installed; and this file may be imported from YAML."""
    monkeypatch.setattr(watching, "get_available_reporting_integrations", lambda: ["wandb", "tensorboard"])
    for name in ("wandb", "tensorboard"):
        monkeypatch.setitem(integration_utils.INTEGRATION_TO_CALLBACK, name, Tracker)
    monkeypatch.setenv("HAYSTACK_DESERIALIZATION_ALLOWLIST", "tests,transformers")
    Seen.logs, Tracker.places = [], []


def answered(folder: Path, passages: dict[str, str]) -> str:
    """Questions with an answer each."""
    ids, rows = list(passages)[:20], []
    for number, key in enumerate(ids):
        found = [ids[(number + step) % len(ids)] for step in range(3)]
        texts = [passages[one] for one in found]
        rows.append(Row(f"t{number}", f"What is {key}?", [texts[0].split()[0]], found, texts, [3.0, 2.0, 1.0]))
    write_training_set(folder, rows)
    return str(folder)


def replies(folder: Path) -> str:
    lines = sentences(80, seed=3)
    pairs = enumerate(zip(lines[:40], lines[40:], strict=True))
    rows = [
        Row(f"d{number}-1", said, [], [f"r{number}"], [reply], [1.0], labels=[1]) for number, (said, reply) in pairs
    ]
    write_training_set(folder, rows)
    return str(folder)


@pytest.fixture
def component(store, bert, passages, beir, reader_folder, tmp_path):
    def made(name: str, **given):
        common = {"output": str(tmp_path / "out"), "epochs": 2, "progress_bar": False, **given}
        if name == "kale":
            return KaleAligner(document_store=store, teacher=bert, layers=1, **common), {}
        if name == "reader":
            rows = answered(tmp_path / "set", passages)
            return ReaderFineTuner(model=reader_folder("llama"), **common), {"training_set": rows}
        if name in {"retriever", "pair"}:
            depths = {"query_layers": 1, "document_layers": 2} if name == "pair" else None
            search = DistilledRetriever(
                retriever=InMemoryEmbeddingRetriever(store), query_encoder=KaleQueryEncoder(bert, backend="torch")
            )
            builder = TrainingSetBuilder(retriever=search, output=str(tmp_path / "set"), top_k=5, judgments=True)
            distiller = RetrieverDistiller(
                document_store=store, model=bert, asymmetric=depths, batch_size=8, similarity="cosine", **common
            )
            return distiller, {"training_set": builder.run(queries=str(beir))["training_set"]}
        rows = replies(tmp_path / "set")
        return ResponseDistiller(model=bert, recipe="dialogues", batch_size=8, **common), {"training_set": rows}

    return made


METRICS = {"kale": "eval_dev_ndcg@10", "reader": "eval_loss", "responses": f"eval_{METRIC}"}


@pytest.mark.parametrize("name", ["kale", "retriever", "pair", "reader", "responses"])
def test_a_tracker_and_a_callback_see_what_dev_says(name, component):
    made, given = component(name, report_to="wandb", callbacks=[f"{__name__}.Seen"])
    made.run(**given)
    measured = [logs for logs in Seen.logs if METRICS.get(name, "eval_dev_ndcg@10") in logs]
    assert len(measured) == 4, "two of them, two epochs"


def test_who_watches_is_written_into_yaml_by_name(component):
    pipeline = Pipeline()
    pipeline.add_component("it", component("kale", report_to=["wandb"], callbacks=[Seen])[0])
    text = pipeline.dumps()
    assert f"{__name__}.Seen" in text
    again = Pipeline.loads(text).get_component("it")
    assert (again.report_to, again.callbacks) == (["wandb"], [Seen])


def test_a_callback_that_was_made_can_be_given_but_not_written(component):
    made, _ = component("kale", callbacks=[EarlyStoppingCallback(1)])
    with pytest.raises(ValueError, match="EarlyStoppingCallback among the callbacks can't be written into YAML"):
        made.to_dict()


def test_a_killed_run_goes_on_with_other_watchers_and_is_the_same_run(component):
    """One more kind of early stopping than before must not be taken for the one that is resumed."""
    with pytest.raises(KeyboardInterrupt):
        component("kale", callbacks=[Interrupting])[0].run()
    made, _ = component("kale", report_to="wandb", callbacks=[Seen, EarlyStoppingCallback(5)])
    made.run()
    epochs = sorted({logs["epoch"] for logs in Seen.logs if METRICS["kale"] in logs})
    assert epochs == [2.0], "the first epoch was not trained again"
    figures = read_figures(Path(made.output))
    plain, _ = component("kale", output=f"{made.output}-plain")
    assert plain.run()["metrics"]["provenance"]["made_of"] == figures["provenance"]["made_of"]


def test_a_loop_hands_them_on_and_goes_on_with_others(store, bert, beir, tmp_path):
    def loop(**watched):
        return DistillationLoop(
            retriever=InMemoryEmbeddingRetriever(store),
            model=bert,
            output=str(tmp_path / "loop"),
            rounds=1,
            distiller={"epochs": 1, "batch_size": 8, **watched},
            progress_bar=False,
        )

    first = loop(report_to="wandb", callbacks=[Seen]).run(queries=str(beir))
    assert Seen.logs
    assert loop().run(queries=str(beir))["rounds"] == first["rounds"]
    with pytest.raises(ValueError, match="give its class instead"):
        loop(callbacks=[Seen()]).run(queries=str(beir))


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("wand", "'wand', which transformers can't report to: take .*mlflow"),
        ("mlflow", "'mlflow', whose package is not"),
    ],
)
def test_a_tracker_that_is_not_there_is_found_out_before_anything_is_made(name, said, component, tmp_path):
    made, _ = component("kale", report_to=["wandb", name])
    with pytest.raises(ValueError, match=said):
        made.run()
    assert not list(tmp_path.glob("*out*"))


def test_what_tensorboard_writes_is_kept_beside_the_output(component, monkeypatch):
    made, _ = component("kale", report_to="tensorboard", epochs=1)
    made.run()
    assert Tracker.places == [f"{made.output}-tensorboard"]
    assert watching.TENSORBOARD_PLACE not in os.environ
    monkeypatch.setenv(watching.TENSORBOARD_PLACE, "elsewhere")
    component("kale", report_to="tensorboard", epochs=1, output=f"{made.output}-2")[0].run()
    assert Tracker.places[1:] == ["elsewhere"]
    assert os.environ[watching.TENSORBOARD_PLACE] == "elsewhere"
