"""JSON lines that people wrote, with where each stands, so that what is wrong can be named."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from haystack_distill.files.shapes import checked
from haystack_distill.files.texts import not_utf8


def read_json_lines(
    file: str | Path, role: str, form: str = "a JSON object", shape: Any = dict[str, Any]
) -> Iterator[tuple[int, Any]]:
    """
    Read the objects of a file of JSON lines; empty lines are passed over.

    :param role: What such a file is for, for the message if it is missing.
    :param form: What a line should be, for the message if it is not.
    :param shape: The same for `checked`; a line is an object, of whatever keys, unless this says more.
    :returns: The number of each line in the file, from 1, and its object.
    :raises FileNotFoundError: If there is no such file.
    :raises ValueError: If a line is not of this shape, or the file is not UTF-8.
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
                raise not_utf8(path, error, f"line {number}: ") from error
            if text.strip():
                yield number, checked(text, shape, f"{path}, line {number}: expected {form}")
