"""A small part of `benchmarks.faults`: two jobs, killed, torn, without room, and with another process beside them."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.fault_processes import content_of

FAULTS = ("kill_at_operation", "full_disk", "two_processes", "torn_write")


@pytest.mark.skipif(os.name != "posix", reason="processes are forked")
def test_nothing_is_lost_and_nothing_is_stuck(tmp_path):
    """In a process of its own: this one has used torch, which does not survive a fork."""
    chosen = [option for name in ("label", "training set") for option in ("--job", name)]
    chosen += [option for name in FAULTS for option in ("--fault", name)]
    command = [sys.executable, "-m", "benchmarks.faults", "--quick", "--json", str(tmp_path / "rows.json"), *chosen]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=Path(__file__).parents[2])
    assert done.returncode == 0, done.stderr[-2000:]
    rows = json.loads((tmp_path / "rows.json").read_text())
    assert {(row["job"], row["fault"]) for row in rows} == {
        (job, fault) for job in ("label", "training set") for fault in FAULTS
    }
    for row in rows:
        assert row["lost"] == row["stuck"] == row["foreign"] == 0, row
        assert row["equal"] + row["refused_with_sentence"] == row["trials"] == 1, row


def test_what_is_left_is_compared_value_by_value_but_for_times(tmp_path):
    (tmp_path / ".out.run").mkdir()
    (tmp_path / ".out.run" / "stray").write_text("x")
    (tmp_path / "metrics.json").write_text('{"a": {"b": 1}, "training": "3 rows, 12 s, seed 0", "none": {}}')
    (tmp_path / "report.html").write_text("one time")
    found = content_of(tmp_path)
    assert found.pop(".out.run/stray")
    assert found == {
        "metrics.json/a/b": 1,
        "metrics.json/training": "3 rows, # s, seed 0",
        "metrics.json/none": {},
        "report.html": True,
    }
