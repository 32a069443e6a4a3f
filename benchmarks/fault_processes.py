"""A job in a process of its own, with a fault, and what it leaves: the ground of `benchmarks.faults`."""

import json
import os
import re
import resource
import signal
import sys
import time
import traceback
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

PATIENCE = 120.0
"""Seconds after which a process is stuck."""

CHANGES = {"os.mkdir", "os.rename", "os.remove", "os.rmdir", "os.truncate", "os.link", "os.symlink", "os.chmod"}
"""Changes of the file system that Python tells of, besides files that are opened to be written."""

PRESENT = {".html", ".md", ".svg", ".sqlite", ".lock", ".pth", ".pt", ".bin"}
"""Files of which only the presence counts: they hold times, or are no part of a result."""


@dataclass
class Ending:
    """
    How a process ended.

    :param sentence: What it said if it refused in a sentence of its own; None if it did not refuse.
    :param foreign: What it said otherwise.
    """

    code: int | None
    sentence: str | None = None
    foreign: str | None = None


@dataclass
class Reference:
    """A job without a fault: what it made, how long it took, how often it changed the file system, how much it held."""

    content: dict[str, Any]
    seconds: float
    changes: int
    size: int
    largest: int


class Process:
    """
    A job in a process of its own, forked after the imports.

    :param kill_at: The number of the change of the file system before which it kills itself.
    :param limit: The most bytes of a file.
    :param user: As whom it runs.
    """

    def __init__(self, job: Any, made: Path, folder: Path, *, kill_at: int = 0, limit: int = 0, user: int = 0) -> None:
        self.said = folder.parent.with_name(f"said-{time.monotonic_ns()}")
        self.number = os.fork()
        if not self.number:
            self._child(job, made, folder, kill_at, limit, user)
        self.start = time.monotonic()

    def _child(self, job: Any, made: Path, folder: Path, kill_at: int, limit: int, user: int) -> None:
        code, allowed = 1, resource.getrlimit(resource.RLIMIT_FSIZE)[1]
        try:
            os.setpgid(0, 0)
            with self.said.with_suffix(".log").open("w") as log:
                os.dup2(log.fileno(), 1)
                os.dup2(log.fileno(), 2)
            self.said.touch()
            self.said.chmod(0o666)
            signal.signal(signal.SIGINT, signal.default_int_handler)
            counted = _count_changes(folder, kill_at)
            if limit:
                resource.setrlimit(resource.RLIMIT_FSIZE, (limit, allowed))
            if user:
                os.setuid(user)
            job.run(made, folder)
            self.said.write_text(json.dumps({"changes": counted[0], "modules": [*sys.modules]}))
            code = 0
        except KeyboardInterrupt:
            code = 130
        except BaseException as error:
            own = any("haystack_" in frame.filename for frame in traceback.extract_tb(error.__traceback__)[-1:])
            kind = "sentence" if isinstance(error, OSError) or (isinstance(error, ValueError) and own) else "foreign"
            resource.setrlimit(resource.RLIMIT_FSIZE, (allowed, allowed))
            self.said.write_text(json.dumps({kind: f"{type(error).__name__}: {error}"[:600]}))
            traceback.print_exc()
        finally:
            os._exit(code)

    def signal(self, number: int) -> None:
        """Send a signal to it and to what it started."""
        for send in (os.killpg, os.kill):
            try:
                send(self.number, number)
            except ProcessLookupError:
                continue
            return

    def wait(self, seconds: float = PATIENCE) -> Ending:
        """Wait for its end; one that does not come is brought about, and has no code."""
        deadline = time.monotonic() + seconds
        while True:
            ended, status = os.waitpid(self.number, os.WNOHANG)
            if ended:
                break
            if time.monotonic() > deadline:
                self.signal(signal.SIGKILL)
                os.waitpid(self.number, 0)
                return Ending(None)
            time.sleep(0.01)
        self.seconds = time.monotonic() - self.start
        text = self.said.read_text() if self.said.exists() else ""
        self.told = json.loads(text) if text else {}
        return Ending(os.waitstatus_to_exitcode(status), self.told.get("sentence"), self.told.get("foreign"))


def _count_changes(folder: Path, kill_at: int) -> list[int]:
    """Count changes of the file system from now on, and end before one of them."""
    counted = [0]
    inside = f"{folder}{os.sep}"

    def hook(event: str, arguments: tuple[Any, ...]) -> None:
        if event == "open":
            path, mode, flags = arguments
            if not isinstance(path, str | bytes | os.PathLike) or not inside_of(path):
                return
            if not (flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT) or (mode and set(mode) & set("wax+"))):
                return
        elif event not in CHANGES or not inside_of(arguments[0]):
            return
        counted[0] += 1
        if counted[0] == kill_at:
            os.kill(os.getpid(), signal.SIGKILL)

    def inside_of(path: Any) -> bool:
        return not isinstance(path, int) and inside in os.fsdecode(path)

    sys.addaudithook(hook)
    return counted


DURATION = re.compile(r"[0-9.]+ s\b")


def content_of(folder: Path) -> dict[str, Any]:
    """What a job left: files, and what is in them, value by value."""
    found: dict[str, Any] = {}
    for path in sorted(folder.rglob("*")):
        name = str(path.relative_to(folder))
        if path.is_dir() or {"old", "new"} & set(path.relative_to(folder).parts):
            continue
        if path.suffix in PRESENT:
            found[name] = True
        elif path.suffix == ".json":
            found |= _leaves(json.loads(path.read_text()), name)
        else:
            found[name] = sha256(path.read_bytes()).hexdigest()
    return found


def _leaves(value: Any, name: str) -> dict[str, Any]:
    if isinstance(value, dict) and value:
        return {key: leaf for part, one in value.items() for key, leaf in _leaves(one, f"{name}/{part}").items()}
    return {name: DURATION.sub("# s", value) if isinstance(value, str) else value}


def size_of(folder: Path) -> tuple[int, int]:
    """The bytes of a folder, and those of its largest file."""
    sizes = [path.stat().st_size for path in folder.rglob("*") if path.is_file()]
    return sum(sizes), max(sizes, default=0)
