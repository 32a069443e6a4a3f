"""Whether a run is the same, whether it is alone, and what is left of it."""

import hashlib
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

from haystack_distill.files.runs import alone, already_made, claim, differing, fingerprint, running, workspace_of

HOLDING = """
import sys
from haystack_distill.files.runs import running
with running(sys.argv[1]):
    print("running", flush=True)
    sys.stdin.readline()
"""


@dataclass(frozen=True)
class Settings:
    layers: int = 2
    keep: tuple[int, ...] = (0, 5)


class TestFingerprint:
    def test_of_texts_and_bytes_it_is_their_sha256(self):
        assert fingerprint("river") == hashlib.sha256(b"river").hexdigest() == fingerprint(b"river")
        assert fingerprint("river", 16) == fingerprint("river")[:16]

    def test_of_other_things_it_is_that_of_their_json_with_sorted_keys(self):
        written = b'{"a": {"keep": [0, 5], "layers": 2}, "b": [1, "models/a"]}'
        assert fingerprint({"b": [1, Path("models/a")], "a": Settings()}) == hashlib.sha256(written).hexdigest()

    def test_half_an_emoji_has_one_too(self):
        assert fingerprint("\ud83d") != fingerprint("\ude00")


class TestDiffering:
    def test_what_json_can_not_tell_apart_does_not_differ(self):
        assert differing({"keep": [0, 5]}, {"keep": (0, 5)}) == []
        assert differing({"settings": {"layers": 2, "keep": [0, 5]}}, {"settings": Settings()}) == []

    def test_a_key_that_only_one_has_differs(self):
        assert differing({"a": 1, "b": 2}, {"b": 3, "c": None, "d": 4}) == ["a", "b", "d"]


class TestRunning:
    def test_the_workspace_goes_when_the_run_ends_and_stays_when_it_fails(self, tmp_path):
        with pytest.raises(KeyboardInterrupt), running(tmp_path / "out") as workspace:
            claim(workspace, {"a": 1})
            (workspace / "checkpoints").mkdir()
            raise KeyboardInterrupt
        assert (workspace / "checkpoints").is_dir()
        with running(tmp_path / "out") as again:
            assert again == workspace == workspace_of(tmp_path / "out")
        assert not list(tmp_path.iterdir())

    def test_an_output_of_a_run_that_has_ended_is_refused_before_anything_is_made(self, tmp_path):
        (tmp_path / "out").mkdir()
        with pytest.raises(FileExistsError, match="name a new one"), running(tmp_path / "out"):
            pytest.fail("it was run")
        assert [path.name for path in tmp_path.iterdir()] == ["out"]

    def test_a_run_that_was_killed_after_its_output_appeared_may_be_ended(self, tmp_path):
        workspace = workspace_of(tmp_path / "out")
        claim(workspace, {"a": 1})
        (tmp_path / "out").mkdir()
        with running(tmp_path / "out"):
            pass
        assert [path.name for path in tmp_path.iterdir()] == ["out"]

    def test_a_run_that_was_killed_while_its_workspace_was_removed_leaves_nothing_for_ever(self, tmp_path):
        """What names the run goes last."""
        workspace = workspace_of(tmp_path / "out")
        (workspace / "checkpoints").mkdir(parents=True)
        (tmp_path / "out").mkdir()
        with pytest.raises(FileExistsError), running(tmp_path / "out"):
            pytest.fail("it was run")
        assert [path.name for path in tmp_path.iterdir()] == ["out"]

    def test_two_processes_do_not_work_on_one_output(self, tmp_path):
        other = subprocess.Popen(
            [sys.executable, "-c", HOLDING, str(tmp_path / "out")],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert other.stdout.readline() == "running\n"
        with pytest.raises(BlockingIOError, match="Another process works on"), running(tmp_path / "out"):
            pytest.fail("it was run")
        other.communicate("end\n")
        with running(tmp_path / "out"):
            pass

    def test_the_first_process_of_torchrun_holds_the_lock_for_all(self, tmp_path, monkeypatch):
        with running(tmp_path / "out") as workspace, monkeypatch.context() as patch:
            patch.setenv("RANK", "1")
            with running(tmp_path / "out") as same:
                assert same == workspace
            assert workspace.is_dir(), "the second process removed what the first one needs"
        assert not workspace.exists()


class TestClaim:
    def test_a_run_goes_on_only_from_the_same(self, tmp_path):
        made = tmp_path / "checkpoint-1"
        claim(tmp_path, {"settings": Settings()}, [made])
        claim(tmp_path, {"settings": Settings(keep=(0, 5))}, [made])
        with pytest.raises(ValueError, match="had other settings"):
            claim(tmp_path, {"settings": Settings(layers=3)}, [made])

    def test_a_run_that_made_nothing_gives_its_place_to_another(self, tmp_path):
        claim(tmp_path, {"settings": 1}, [])
        (tmp_path / "layers.json").write_text("{}")
        claim(tmp_path, {"settings": 2}, [])
        assert not (tmp_path / "layers.json").exists()
        with pytest.raises(ValueError, match="had other settings"):
            claim(tmp_path, {"settings": 3})


def test_a_finished_folder_says_what_it_was_made_of(tmp_path):
    out = tmp_path / "out"
    assert not already_made(out, "summary.json", "abc")
    out.mkdir()
    (out / "summary.json").write_text('{"made_of": "abc"}')
    assert not already_made(out, "summary.json", "other")
    workspace_of(out).mkdir()
    assert already_made(out, "summary.json", "abc")
    assert not workspace_of(out).exists(), "what a kill left of its run"


def test_alone_says_who_is_busy(tmp_path):
    with alone(tmp_path / "lock", ""), pytest.raises(BlockingIOError, match="wait for it"):
        with alone(tmp_path / "lock", "Another one: wait for it."):
            pytest.fail("it was not alone")
