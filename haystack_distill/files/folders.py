"""
Folders and files that are either complete or not there, after a kill and after a power cut.

Everything is written to a neighbour, put on the disk, and moved into place. Every process has neighbours of its own.
"""

import json
import os
import platform
import shutil
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

UNFINISHED = ".unfinished"

ROOM = 2**20
"""Bytes; a disk with less is full to a library that writes."""

NOT_WRITTEN = ("No space left", "File too large", "disk is full", "PytorchStreamWriter failed", "unexpected pos")
"""What safetensors, SQLite and torch say of a file that could not be written; none of them raises an OSError."""

LONGEST_NAME = 255
"""Bytes, in the file systems in use."""


def refuse_existing(folder: str | Path) -> Path:
    """
    Make sure that a result would not overwrite an earlier one.

    :raises FileExistsError: If it is there already, be it a link to nothing.
    :raises ValueError: If its name is too long for the names that it has until it is whole.
    """
    path = Path(folder)
    if len(os.fsencode(_neighbour(path).name)) > LONGEST_NAME:
        msg = f"The name of the output folder {path.name[:40]}... is too long: give it a shorter one."
        raise ValueError(msg)
    if os.path.lexists(path):
        msg = (
            f"The output folder {path} exists already: name a new one. Trained models are never overwritten, because "
            "Haystack's embedders keep a loaded model by its path and would go on serving the old one."
        )
        raise FileExistsError(msg)
    return path


@contextmanager
def published(folder: str | Path) -> Iterator[Path]:
    """
    Give a folder to write into that appears under its final name only when the block ends without an error.

    Its files get the permissions that the umask gives to new files: safetensors makes files that only their owner can
    read, and whoever trains is often not who serves.

    :raises FileExistsError: If the final name is taken, now or when the block ends.
    """
    final = refuse_existing(folder)
    final.parent.mkdir(parents=True, exist_ok=True)
    _clear_after_kills(final)
    unfinished = _neighbour(final)
    unfinished.mkdir()
    try:
        with full_disk_named(unfinished):
            yield unfinished
            _settle(unfinished)
        refuse_existing(final)
        os.replace(unfinished, final)
    except BaseException:
        shutil.rmtree(unfinished, ignore_errors=True)
        raise
    _sync(final.parent)


@contextmanager
def full_disk_named(folder: Path) -> Iterator[None]:
    """
    Say that the disk is full where a library that writes says something else.

    :raises OSError: Instead of what a library raised because it could not write.
    """
    try:
        yield
    except (OSError, ValueError):
        raise
    except Exception as error:
        said = " ".join(str(error).split())
        if shutil.disk_usage(folder.parent).free > ROOM and not any(sign in said for sign in NOT_WRITTEN):
            raise
        full = f"The files in {folder.parent} can't be written, as the disk is full ({said[:200]})"
        msg = f"{full}: make room and start again."
        raise OSError(msg) from error


@contextmanager
def written(file: Path) -> Iterator[Path]:
    """
    Give a file to write that takes its final name only when the block ends without an error.

    Readers see the file as it was or as it is, and a process that has the old one mapped keeps the old one.
    """
    _clear_after_kills(file)
    unfinished = _neighbour(file)
    try:
        yield unfinished
        _sync(unfinished)
        os.replace(unfinished, file)
    except BaseException:
        unfinished.unlink(missing_ok=True)
        raise
    _sync(file.parent)


def write_json(file: Path, content: dict[str, Any]) -> None:
    """Write a JSON file in one step, see `written`."""
    with written(file) as unfinished:
        unfinished.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def _neighbour(final: Path) -> Path:
    return final.with_name(f".{final.name}.{platform.node()}-{os.getpid()}{UNFINISHED}")


def _clear_after_kills(final: Path) -> None:
    """Remove what processes of this machine left that do not run any more."""
    start = f".{final.name}.{platform.node()}-"
    for left in final.parent.iterdir():
        process = left.name.removeprefix(start).removesuffix(UNFINISHED)
        if left.name == f"{start}{process}{UNFINISHED}" and process.isdecimal() and not _runs(int(process)):
            shutil.rmtree(left, ignore_errors=True) if left.is_dir() else left.unlink(missing_ok=True)


def _runs(process: int) -> bool:
    if os.name == "nt":  # there os.kill would end it
        return process != os.getpid()
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return process != os.getpid()


def _settle(folder: Path) -> None:
    """Give all files of a folder the permissions of new files, and put it on the disk."""
    allowed = folder.stat().st_mode & 0o666
    for path in folder.rglob("*"):
        if path.is_symlink():
            continue
        if path.is_file():
            path.chmod(stat.S_IMODE(path.stat().st_mode) | allowed)
        _sync(path)
    _sync(folder)


def _sync(path: Path) -> None:
    """Make sure that a file, or which files a folder has, survives a power cut."""
    if os.name == "nt":  # it can't sync what is only read
        return
    number = os.open(path, os.O_RDONLY)
    try:
        os.fsync(number)
    finally:
        os.close(number)
