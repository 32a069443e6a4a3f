# SPDX-FileCopyrightText: 2026-present haystack-distill contributors
#
# SPDX-License-Identifier: Apache-2.0

"""Folders that are either complete or not there: everything is written to a neighbour and moved into place."""

import json
import logging
import os
import shutil
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

logger = logging.getLogger(__name__)


def refuse_existing(folder: str | Path) -> Path:
    """
    Make sure that a result would not overwrite an earlier one.

    :param folder: Where the result is to be written.
    :returns: The folder as a path.
    :raises FileExistsError: If it is there already.
    """
    path = Path(folder)
    if path.exists():
        msg = (
            f"The output folder {path} exists already: name a new one. Trained models are never overwritten, because "
            "Haystack's embedders keep a loaded model by its path and would go on serving the old one."
        )
        raise FileExistsError(msg)
    return path


@contextmanager
def published(folder: str | Path) -> Iterator[Path]:
    """
    Give a folder to write into that appears under its own name only when the block ends without an error.

    :param folder: The final name.
    :raises FileExistsError: If the final name is taken.
    """
    final = refuse_existing(folder)
    unfinished = final.with_name(f".{final.name}.unfinished")
    shutil.rmtree(unfinished, ignore_errors=True)
    unfinished.mkdir(parents=True)
    yield unfinished
    os.replace(unfinished, final)


def write_json(file: Path, content: dict[str, Any]) -> None:
    """
    Write a JSON file in one step, so that a reader never sees half of it.

    :param file: The file to write.
    :param content: What it holds.
    """
    # Several processes of one run may write the same.
    unfinished = file.with_name(f".{file.name}.{os.getpid()}.unfinished")
    unfinished.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    os.replace(unfinished, file)


@contextmanager
def alone(lock: Path, busy: str) -> Iterator[None]:
    """
    Keep other processes out for the length of a block.

    :param lock: The lock file; its folder is made.
    :param busy: What to say if another process holds it.
    :raises BlockingIOError: If another process holds it.
    """
    lock.parent.mkdir(parents=True, exist_ok=True)
    held = FileLock(lock)
    try:
        held.acquire(timeout=0)
    except Timeout as error:
        raise BlockingIOError(busy) from error
    try:
        yield
    finally:
        held.release()


def workspace_for(output: str | Path) -> Path:
    """
    Where a run keeps what it needs to go on after a kill: a hidden neighbour of its output.

    :param output: The output folder.
    :returns: The workspace.
    :raises FileExistsError: If the output is there already.
    """
    final = refuse_existing(output)
    return final.with_name(f".{final.name}.run")


def claim(workspace: Path, run: dict[str, Any], made: Iterable[Path] | None = None) -> None:
    """
    Bind a workspace to what is run in it, so that a run never goes on from the checkpoints of another.

    :param workspace: The workspace.
    :param run: What the run depends on.
    :param made: What the run would go on from; where there is none, there is nothing to mix up, and another run may
        take the workspace over. None lets none do so.
    :raises ValueError: If the workspace belongs to another run.
    """
    workspace.mkdir(parents=True, exist_ok=True)
    content = json.loads(json.dumps(run))
    file = workspace / "run.json"
    if file.exists():
        before = json.loads(file.read_text(encoding="utf-8"))
        differs = [key for key in content if content[key] != before.get(key)]
        if differs and (made is None or any(made)):
            msg = (
                f"An unfinished run in {workspace} had other {' and '.join(differs)}: finish it with the same, delete "
                "the folder to start over, or name another output."
            )
            raise ValueError(msg)
        if differs:
            for found in workspace.glob("*.json"):
                found.unlink()
        else:
            logger.info("Going on with the unfinished run in %s.", workspace)
    write_json(file, content)
