"""Runs that are killed on purpose."""

import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path


def kill_when(ready: Callable[[], object], process: subprocess.Popen) -> None:
    """kill -9 as soon as something is true, which it must be before the run ends."""
    deadline = time.monotonic() + 300
    while not ready():
        assert time.monotonic() < deadline, "the run did not come far enough to be killed"
        assert process.poll() is None, "the run ended before it could be killed"
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.wait()


def kill_at_first_checkpoint(process: subprocess.Popen, workspace: Path) -> None:
    """kill -9 when a run has written its first checkpoint."""
    kill_when(lambda: list(workspace.glob("checkpoints/checkpoint-*/trainer_state.json")), process)


def lines_in(file: Path) -> int:
    """How many lines a file has so far; none while it is missing."""
    return len(file.read_text().splitlines()) if file.exists() else 0
