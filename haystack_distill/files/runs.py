"""
Whether a run is the same as one before, so that it may go on from what that one left, and that it is alone.

A run that makes a folder keeps what it needs to go on in a workspace, a hidden neighbour of that folder. There
`run.json` says what the run depends on; the finished folder keeps the fingerprint of that as `made_of`.
"""

import hashlib
import json
import logging
import shutil
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, is_dataclass
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from haystack_distill.files.folders import full_disk_named, refuse_existing, write_json
from haystack_distill.files.layout import RUN
from haystack_distill.files.processes import process_number
from haystack_distill.files.shapes import read_json

logger = logging.getLogger(__name__)

LOCK = ".lock"


def fingerprint(content: Any, length: int = 64) -> str:
    """
    Name content by its SHA-256: the same content has the same name in every process and on every machine.

    :param content: Bytes, a text, or what JSON can hold; dataclasses count as their fields, other things by their text.
    """
    if not isinstance(content, bytes):
        text = content if isinstance(content, str) else json.dumps(content, sort_keys=True, default=_plain)
        content = text.encode("utf-8", "surrogatepass")
    return hashlib.sha256(content).hexdigest()[:length]


def differing(before: dict[str, Any], now: dict[str, Any]) -> list[str]:
    """The keys in which two descriptions differ once both are JSON; one that only one of them has differs too."""
    one, other = (json.loads(json.dumps(content, default=_plain)) for content in (before, now))
    return [key for key in {**one, **other} if one.get(key) != other.get(key)]


def workspace_of(output: str | Path) -> Path:
    """Where a run keeps what it needs to go on after a kill: a hidden neighbour of its output."""
    return Path(output).with_name(f".{Path(output).name}.run")


def workspace_for(output: str | Path) -> Path:
    """
    The workspace of a run that is about to start, or to end what was killed.

    :raises FileExistsError: If the output is there and its run has ended.
    """
    workspace = workspace_of(output)
    if not workspace.exists():
        refuse_existing(output)
    return workspace


def already_made(output: Path, file: str, made_of: str) -> bool:
    """
    Whether a finished folder says that it was made of the same; what a kill left of its run is removed then.

    :param file: The JSON file in it that says so, as `made_of`.
    """
    path = output / file
    if not path.is_file() or read_json(path, dict[str, Any], "name another output.").get("made_of") != made_of:
        return False
    logger.info("%s is there already, made of the same.", output)
    shutil.rmtree(workspace_of(output), ignore_errors=True)
    return True


@contextmanager
def running(output: str | Path) -> Iterator[Path]:
    """
    Give the workspace of a run, keep other processes out of it, and remove it when the block ends without an error.

    A block that ends in an error before it kept anything leaves nothing behind. Where a run was killed after its output
    had appeared, the workspace is still there, and the run may be ended. Of the
    processes of `torchrun` the first one holds the lock and removes the workspace.

    :raises BlockingIOError: If another process works on the same output.
    :raises FileExistsError: If the output is there and its run has ended.
    """
    workspace = workspace_for(output)
    with alone(workspace / LOCK, f"Another process works on {output}: wait for it, or name another output."):
        if Path(output).exists() and not (workspace / RUN).is_file():
            _remove(workspace)
            refuse_existing(output)
        try:
            with full_disk_named(workspace):
                yield workspace
        except BaseException:
            if [path.name for path in workspace.iterdir()] == [LOCK]:  # nothing was begun
                shutil.rmtree(workspace)
            raise
        _remove(workspace)


def _remove(workspace: Path) -> None:
    """Remove a workspace, what names its run at the end: a kill in between leaves a run that can be ended."""
    if process_number():
        return
    for path in workspace.iterdir():
        if path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
        elif path.name not in {RUN, LOCK}:
            path.unlink(missing_ok=True)
    shutil.rmtree(workspace, ignore_errors=True)


@contextmanager
def alone(lock: Path, busy: str) -> Iterator[None]:
    """
    Keep other runs out for the length of a block. Of the processes of `torchrun` the first one holds the lock for all.

    :param lock: The lock file; its folder is made.
    :param busy: What to say if another process holds it.
    :raises BlockingIOError: If another process holds it.
    """
    lock.parent.mkdir(parents=True, exist_ok=True)
    if process_number():
        yield
        return
    held = FileLock(lock)
    try:
        held.acquire(timeout=0)
    except Timeout as error:
        raise BlockingIOError(busy) from error
    try:
        yield
    finally:
        held.release()


def claim(workspace: Path, run: dict[str, Any], made: Iterable[Path] | None = None) -> None:
    """
    Bind a workspace to what is run in it, so that a run never goes on from the checkpoints of another.

    :param made: What the run would go on from; where there is none, there is nothing to mix up, and another run may
        take the workspace over. None lets none do so.
    :raises ValueError: If the workspace belongs to another run.
    """
    workspace.mkdir(parents=True, exist_ok=True)
    file = workspace / RUN
    if file.exists():
        before = read_json(file, dict[str, Any], f"delete the folder {workspace} to start over.")
        differs = differing(before, run)
        if differs and (made is None or any(made)):
            named = " and ".join(name if name in run else repr(name) for name in differs)
            msg = (
                f"An unfinished run in {workspace} had other {named}: finish it with the same, delete "
                "the folder to start over, or name another output."
            )
            raise ValueError(msg)
        if differs:
            for other in workspace.glob("*.json"):
                other.unlink()
        else:
            logger.info("Going on with the unfinished run in %s.", workspace)
    write_json(file, json.loads(json.dumps(run, default=_plain)))


def _plain(value: Any) -> Any:
    return asdict(value) if is_dataclass(value) and not isinstance(value, type) else str(value)
