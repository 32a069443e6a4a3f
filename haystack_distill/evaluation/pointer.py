"""
A pointer file that says which index serves, and moves in one step.

Whoever reads the file sees the old index or the new one, never half of either.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from typing_extensions import TypedDict

from haystack_distill.files.folders import write_json
from haystack_distill.files.shapes import read_json

VERSION = 1


class _Versioned(TypedDict):
    version: int


@dataclass(frozen=True)
class Serving:
    """What a pointer points at: folder or hub name of the encoders of an index, and the serialised store."""

    query_model: str
    document_model: str
    document_store: dict[str, Any]


def read_pointer(file: str | Path) -> Serving | None:
    """Read which index serves; None if there is no such file yet, a ValueError if it is no pointer."""
    path = Path(file)
    if not path.is_file():
        return None
    again = "it does not say which index serves; restore it, or delete it to start anew."
    version = read_json(path, _Versioned, again)["version"]
    if version != VERSION:
        msg = f"{path} is of version {version}, this package reads version {VERSION}."
        raise ValueError(msg)
    serving: Serving = read_json(path, Serving, again)
    return serving


def write_pointer(file: str | Path, serving: Serving, previous: Serving | None = None, **facts: Any) -> None:
    """Move a pointer in one step. What served before, and facts that speak for the move, stand beside it for people."""
    path = Path(file)
    path.parent.mkdir(parents=True, exist_ok=True)
    before = {"previous": vars(previous)} if previous else {}
    write_json(path, {"version": VERSION, **vars(serving), **facts, **before})
