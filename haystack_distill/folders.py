# SPDX-FileCopyrightText: 2026-present haystack-distill contributors
#
# SPDX-License-Identifier: Apache-2.0

"""Folders that are either complete or not there: everything is written to a neighbour and moved into place."""

import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any


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
    unfinished = file.with_name(f".{file.name}.unfinished")
    unfinished.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    os.replace(unfinished, file)
