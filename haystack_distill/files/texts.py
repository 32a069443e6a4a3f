"""Text and tables that people wrote: what is not UTF-8 is named, with its file and, where it is known, its line."""

import csv
from collections.abc import Iterator
from pathlib import Path

SUFFIXES = (".txt", ".md", ".markdown", ".rst")
"""What counts as a text; other formats are for Haystack's converters."""


def text_files(path: Path) -> list[Path]:
    """The texts of a folder, or the path itself if it is one; none of a folder in BEIR's form."""
    if (path / "corpus.jsonl").is_file():
        return []
    files = sorted(path.rglob("*")) if path.is_dir() else [path]
    return [file for file in files if file.suffix.lower() in SUFFIXES and file.is_file()]


def read_text(file: Path) -> str:
    """Read a whole file; a ValueError if it is not UTF-8."""
    try:
        return file.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise not_utf8(file, error) from error


def read_cells(file: Path, delimiter: str) -> Iterator[tuple[int, list[str]]]:
    """
    Read the rows of a CSV or TSV file; a BOM at its beginning is passed over.

    :returns: The number of each row's last line in the file, from 1, and its cells; none for an empty line.
    :raises ValueError: If the file is not UTF-8, or a cell has no end.
    """
    with file.open(encoding="utf-8-sig", newline="") as lines:
        rows = csv.reader(lines, delimiter=delimiter)
        try:
            for row in rows:
                yield rows.line_num, row
        except UnicodeDecodeError as error:
            raise not_utf8(file, error, f"after line {rows.line_num}: ") from error
        except csv.Error as error:
            msg = f"{file}, line {rows.line_num}: {error}."
            raise ValueError(msg) from error


def not_utf8(file: Path, error: UnicodeDecodeError, where: str = "") -> ValueError:
    """
    Say that a file is not UTF-8.

    :param where: Its line and a colon, to begin the reason with.
    """
    return ValueError(f"{file} is not UTF-8 text ({where}{error}): save it as UTF-8.")
