"""Building a training set out of questions, shard by shard, so that a killed run goes on where it was."""

import logging
import os
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from pyarrow import parquet

from haystack_distill.data.questions import Question
from haystack_distill.data.training_set import MANIFEST, Row, TrainingSet, manifest_of, shard_name, write_shard
from haystack_distill.files.bulk import bulk, one_result
from haystack_distill.files.folders import published, write_json
from haystack_distill.files.progress import progress_bar
from haystack_distill.files.runs import already_made, claim, fingerprint, running

logger = logging.getLogger(__name__)

Search = Callable[[list[Question]], list[Row]]
"""Finds candidates for some questions; it leaves out questions for which it finds nothing."""


def build(
    questions: list[Question],
    make_search: Callable[[], Search],
    output: Path,
    *,
    source: str,
    retriever: str,
    similarity: str,
    settings: dict[str, Any],
    shard_rows: int,
    teacher: dict[str, Any] | None = None,
    num_workers: int = 1,
    progress: bool = True,
) -> TrainingSet:
    """
    Find candidates for questions and write a training set.

    :param make_search: Gives the search to the process that searches, or to each of them: see `files.bulk`.
    :param similarity: What `retriever_scores` are.
    :param settings: What else the rows depend on: an unfinished run with other settings is refused.
    :param teacher: The teacher's identity, where rows come with its scores.
    :returns: The training set; the one that is there already if it was made of the same questions and settings.
    :raises FileExistsError: If the output exists and was made of others.
    :raises ValueError: If nothing is found, or an unfinished run had other settings.
    """
    made_of = {
        "questions": fingerprint(repr(questions)),
        "settings": {**settings, "similarity": similarity, "shard_rows": shard_rows},
    }
    name = fingerprint(made_of)
    if already_made(output, MANIFEST, name):
        return TrainingSet.open(output)
    with running(output) as workspace:
        claim(workspace, made_of, workspace.glob("shard-*"))
        _search(questions, make_search, workspace, shard_rows, num_workers, progress)
        shards = {file.name: parquet.read_metadata(file).num_rows for file in sorted(workspace.glob("shard-*"))}
        rows = sum(shards.values())
        if rows < len(questions):
            logger.warning(
                "Nothing was found for %d of %d queries; they are left out.", len(questions) - rows, len(questions)
            )
        if rows:
            with published(output) as folder:
                for file in shards:
                    os.replace(workspace / file, folder / file)
                said = {
                    file: {"rows": count} | ({"labelled": count} if teacher else {}) for file, count in shards.items()
                }
                manifest = manifest_of(said, source, retriever, similarity, teacher)
                write_json(folder / MANIFEST, {**manifest, "made_of": name})
    if not rows:
        msg = f"{retriever} found nothing for any of the {len(questions)} queries: is the index empty?"
        raise ValueError(msg)
    return TrainingSet.open(output)


def _search(
    questions: list[Question],
    make_search: Callable[[], Search],
    workspace: Path,
    shard_rows: int,
    num_workers: int,
    progress: bool,
) -> None:
    """Search for the questions of every shard that is not there."""
    chunks = {
        workspace / shard_name(number): questions[start : start + shard_rows]
        for number, start in enumerate(range(0, len(questions), shard_rows))
    }
    left = {file: chunk for file, chunk in chunks.items() if not file.exists()}
    done = len(questions) - sum(map(len, left.values()))
    with progress_bar("Searching", len(questions), done, shown=progress) as show:
        found = bulk(left.values(), partial(one_result, make_search), num_workers)
        for (file, chunk), rows in zip(left.items(), found, strict=True):
            write_shard(file, rows)
            done += len(chunk)
            show(done)
