# SPDX-FileCopyrightText: 2026-present haystack-distill contributors
#
# SPDX-License-Identifier: Apache-2.0

"""Building a training set out of questions, shard by shard, so that a killed run goes on where it was."""

import hashlib
import json
import logging
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from pyarrow import parquet
from rich.console import Console
from rich.progress import Progress

from haystack_distill.data.questions import Question
from haystack_distill.data.training_set import MANIFEST, Row, TrainingSet, manifest_of, shard_name, write_shard
from haystack_distill.files.folders import claim, workspace_for, write_json

logger = logging.getLogger(__name__)


def build(
    questions: list[Question],
    candidates: Callable[[list[Question]], list[Row]],
    output: Path,
    *,
    source: str,
    retriever: str,
    similarity: str,
    settings: dict[str, Any],
    shard_rows: int,
    teacher: dict[str, Any] | None = None,
    progress: bool = True,
) -> TrainingSet:
    """
    Find candidates for questions and write a training set.

    :param questions: The questions.
    :param candidates: Finds them for some questions at a time; it leaves out questions for which it finds nothing.
    :param output: The folder to make.
    :param source: Where the questions come from.
    :param retriever: What finds candidates.
    :param similarity: What `retriever_scores` are.
    :param settings: What else the rows depend on: an unfinished run with others is not gone on with.
    :param shard_rows: Questions a shard.
    :param teacher: The teacher's identity, where rows come with its scores.
    :param progress: Whether to show a progress bar on stderr.
    :returns: The training set; the one that is there already if it is of the same questions, retriever and settings.
    :raises FileExistsError: If the output exists and is of others.
    :raises ValueError: If nothing is found, or an unfinished run had other settings.
    """
    asked = hashlib.sha256(repr(questions).encode()).hexdigest()
    made_of = {"questions": asked, "settings": {**settings, "similarity": similarity, "shard_rows": shard_rows}}
    fingerprint = hashlib.sha256(json.dumps(made_of, sort_keys=True, default=str).encode()).hexdigest()
    if (output / MANIFEST).is_file() and TrainingSet.open(output).manifest.get("made_of") == fingerprint:
        logger.info("%s is there already, of the same questions and retriever.", output)
        return TrainingSet.open(output)
    workspace = workspace_for(output)
    claim(workspace, made_of, workspace.glob("shard-*"))
    with Progress(console=Console(stderr=True), disable=not progress) as bar:
        task = bar.add_task("Searching", total=len(questions))
        for number, start in enumerate(range(0, len(questions), shard_rows)):
            chunk = questions[start : start + shard_rows]
            file = workspace / shard_name(number)
            if not file.exists():
                write_shard(file, candidates(chunk))
            bar.advance(task, len(chunk))
    rows = {file.name: parquet.read_metadata(file).num_rows for file in sorted(workspace.glob("shard-*"))}
    shards = {name: {"rows": count} | ({"labelled": count} if teacher else {}) for name, count in rows.items()}
    found = sum(rows.values())
    if not found:
        shutil.rmtree(workspace)
        msg = f"{retriever} found nothing for any of the {len(questions)} queries: is the index empty?"
        raise ValueError(msg)
    if found < len(questions):
        logger.warning(
            "Nothing was found for %d of %d queries; they are left out.", len(questions) - found, len(questions)
        )
    (workspace / "run.json").unlink()
    manifest = manifest_of(shards, source, retriever, similarity, teacher)
    write_json(workspace / MANIFEST, {**manifest, "made_of": fingerprint})
    os.replace(workspace, output)
    return TrainingSet.open(output)
