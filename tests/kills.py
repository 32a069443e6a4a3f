# SPDX-FileCopyrightText: 2026-present haystack-distill contributors
#
# SPDX-License-Identifier: Apache-2.0

"""Runs that are killed on purpose."""

import signal
import subprocess
import time
from pathlib import Path


def kill_at_first_checkpoint(process: subprocess.Popen, workspace: Path) -> None:
    """kill -9 shortly after a run has written its first checkpoint, which it must have done before it ends."""
    deadline = time.monotonic() + 120
    while not list(workspace.glob("checkpoints/checkpoint-*/trainer_state.json")):
        assert time.monotonic() < deadline, "no checkpoint was written"
        assert process.poll() is None, "the run ended before it could be killed"
        time.sleep(0.02)
    time.sleep(0.2)
    process.send_signal(signal.SIGKILL)
    process.wait()
