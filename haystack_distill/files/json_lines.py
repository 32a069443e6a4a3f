"""JSON lines that people wrote, with where each stands, so that what is wrong can be named."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any


def read_json_lines(file: str | Path, role: str, form: str = "a JSON object") -> Iterator[tuple[int, dict[str, Any]]]:
    """
    Read the objects of a file of JSON lines; empty lines are passed over.

    :param role: What such a file is for, for the message if it is missing.
    :param form: What a line should be, for the message if it is not.
    :returns: The number of each line in the file, from 1, and its object.
    :raises FileNotFoundError: If there is no such file.
    :raises ValueError: If a line is no JSON object, or the file is not UTF-8.
    """
    path = Path(file)
    if not path.is_file():
        msg = f"{path} is missing: {role}."
        raise FileNotFoundError(msg)
    with path.open("rb") as lines:
        for number, line in enumerate(lines, start=1):
            try:
                text = line.decode("utf-8")
            except UnicodeDecodeError as error:
                msg = f"{path} is not UTF-8 text (line {number}: {error}): save it as UTF-8."
                raise ValueError(msg) from error
            if text.strip():
                yield number, _object(text, path, number, form)


def _object(line: str, file: Path, number: int, form: str) -> dict[str, Any]:
    try:
        row = json.loads(line)
        if "\\ud" in line.lower():
            json.dumps(row, ensure_ascii=False).encode("utf-8")
    except (ValueError, RecursionError) as error:  # no JSON; an endless number; half an emoji; brackets without end
        msg = f"{file}, line {number}: expected {form} ({error})."
        raise ValueError(msg) from error
    if not isinstance(row, dict):
        msg = f"{file}, line {number}: expected {form}, not {line.strip()[:40]!r}."
        raise ValueError(msg)
    return row
