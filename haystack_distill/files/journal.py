"""A file of JSON lines that a killed process leaves whole but for its last line."""

import json
import os
from pathlib import Path
from typing import Any

from haystack_distill.files.shapes import checked

WAY_OUT = ": delete this line, and what it says is made anew."


class Journal:
    """
    Rows that are on the disk as soon as they are appended.

    :param file: The file; its rows are read if it is there, and what a killed process left of a last line is cut off.
    :raises ValueError: If a line before the last one is damaged.
    """

    def __init__(self, file: Path) -> None:
        self.file = file
        self.rows: list[dict[str, Any]] = []
        if not file.exists():
            return
        whole = 0
        content = file.read_bytes()
        for number, line in enumerate(content.splitlines(keepends=True), start=1):
            if not line.endswith(b"\n"):
                break  # the process died, or the disk was full, in the middle of this line
            self.rows.append(checked(line, dict[str, Any], f"{file}, line {number}, is damaged", WAY_OUT))
            whole += len(line)
        if whole < len(content):
            os.truncate(file, whole)

    def append(self, *rows: dict[str, Any]) -> None:
        """
        Add rows, on the disk when this returns.

        :raises FileNotFoundError: If the folder is gone: to a file that was deleted one can write for hours.
        :raises OSError: If the rows can't be written; all before are kept.
        """
        if not self.file.parent.is_dir():
            raise FileNotFoundError(self.file.parent)
        with self.file.open("ab", buffering=0) as file:
            lines = "".join(json.dumps(row, ensure_ascii=False, allow_nan=False) + "\n" for row in rows).encode()
            written = file.write(lines)
            if written != len(lines):
                file.write(lines[written:])  # raises what went wrong
            os.fsync(file.fileno())
        self.rows += rows
