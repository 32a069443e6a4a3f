# SPDX-FileCopyrightText: 2026-present haystack-distill contributors
#
# SPDX-License-Identifier: Apache-2.0

"""Two encoders of different depth out of a labelled training set, measured beside the one they came from."""

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from haystack_distill.data.index import IndexView
from haystack_distill.data.sentences import unseen
from haystack_distill.data.training_set import TrainingSet
from haystack_distill.distill.job import Dev, held_out
from haystack_distill.distill.pair import (
    AsymmetricPair,
    AsymmetricSettings,
    rows_of_training_set,
    train_asymmetric,
    write_pair,
)
from haystack_distill.distill.proof import UNTOUCHED, judge_of, splits_of
from haystack_distill.distill.targets import targets_of
from haystack_distill.evaluation.comparison import (
    measure_move,
    metrics,
    student_system,
    teacher_system,
    wins_and_losses,
)
from haystack_distill.evaluation.quality import measure, search
from haystack_distill.evaluation.report import write_report
from haystack_distill.files.folders import published, workspace_for, write_json
from haystack_distill.files.processes import process_number, wait_for_all
from haystack_distill.students.bi_encoder import BiEncoder


def train_and_prove_pair(
    encoder: BiEncoder,
    name: str,
    training_set: TrainingSet,
    index: IndexView,
    settings: AsymmetricSettings,
    output: Path,
    judged: str | None = None,
    *,
    progress: bool = True,
) -> dict[str, Any]:
    """
    Train a query and a document encoder on the teacher's favourites and write both with their proof into a new folder.

    :param encoder: The encoder they are cut from, with the settings of the index.
    :param name: Its folder or hub name.
    :param training_set: A labelled training set.
    :param index: The index.
    :param settings: What is wanted.
    :param output: The folder to make: `query` and `document` are plain encoders in it.
    :param judged: See `distill_and_prove`.
    :param progress: Whether to show progress bars.
    :returns: The content of `metrics.json`, see docs/metrics.md.
    :raises ValueError: See `train_asymmetric`.
    """
    workspace = workspace_for(output)
    dev, test = splits_of(judged, index)
    chosen = dev or held_out(targets_of(training_set.labelled(), index.ids), index, settings.training.seed)
    rows = rows_of_training_set(training_set)
    asked = test[0].values() if test else ()
    left = set(unseen(rows["query"], [*chosen.queries.values(), *asked]))
    kept = [number for number, query in enumerate(rows["query"]) if query in left]
    pair = train_asymmetric(
        encoder, rows.select(kept), settings, workspace, index, chosen.queries, chosen.qrels, progress=progress
    )
    if process_number():  # the first process measures and writes for all
        wait_for_all()
        return json.loads((output / "metrics.json").read_text(encoding="utf-8"))
    figures = _measured(encoder, pair, index, chosen, test, settings.training.seed)
    made = {"trained": name, "teacher": training_set.manifest["teacher"], "dev_judged": chosen.judged, **pair.summary}
    with published(output) as folder:
        write_pair(pair, folder)
        report = figures.pop("report")
        write_json(folder / "metrics.json", {**figures, "provenance": made})
        (folder / "report.html").write_text(report, encoding="utf-8")
    wait_for_all()
    shutil.rmtree(workspace, ignore_errors=True)
    return {**figures, "provenance": made}


def _measured(
    encoder: BiEncoder,
    pair: AsymmetricPair,
    index: IndexView,
    dev: Dev,
    test: tuple[dict[str, str], dict[str, dict[str, int]]] | None,
    seed: int,
) -> dict[str, Any]:
    queries, qrels = test or (dev.queries, dev.qrels)
    vectors = pair.document_model.encode(index.texts, batch_size=32, show_progress_bar=False)
    moved = replace(index, vectors=np.asarray(vectors, dtype=np.float32))
    before, after = (
        replace(teacher_system(encoder), name=UNTOUCHED),
        student_system("student", pair.query_model, pair.summary["seconds"]),
    )
    measured = measure_move(before, after, index, moved, queries, qrels)
    asked = list(dev.qrels)
    texts = [dev.queries[query_id] for query_id in asked]
    on_dev = [
        measure(search(where, asked, system.encode(texts)), dev.qrels).mean()
        for system, where in ((before, index), (after, moved))
    ]
    figures = {
        **metrics(measured, seed, UNTOUCHED),
        "recommended": "student" if on_dev[1] > on_dev[0] else UNTOUCHED,
        "dev": {"before": on_dev[0], "after": on_dev[1], "judged": dev.judged},
        "training_seconds": pair.summary["seconds"],
        "judged_by": "judged test queries" if test else judge_of(dev),
        "embed_again": "all documents",
    }
    examples = wins_and_losses(measured["student"], measured[UNTOUCHED], queries, qrels, index)
    facts = {
        "Recommendation": "use it" if figures["recommended"] == "student" else "stay with the untouched one",
        "Layers": f"{pair.summary['layers']['query']} of queries, {pair.summary['layers']['document']} of documents",
        "To be embedded again": "all documents",
        "Training": f"{pair.summary['rows']} queries, {pair.summary['seconds']:.0f} s",
        "Judged by": str(figures["judged_by"]),
    }
    history = [{"epoch": 0.0, "dev_ndcg@10": on_dev[0]}, *pair.summary["history"]]
    return {**figures, "report": write_report(measured, figures, examples, facts, history, UNTOUCHED)}
