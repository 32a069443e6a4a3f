"""Folders and files that are complete or not there: after a kill, after a power cut, and with others at work."""

import json
import os
import platform
import sqlite3
import stat
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.numpy import save_file

from haystack_distill.data.index import stored_vectors
from haystack_distill.files.folders import full_disk_named, published, write_json, written
from haystack_distill.files.runs import running

ELSEWHERE = """
import sys
from pathlib import Path
from haystack_distill.files.folders import published
with published(sys.argv[1]) as folder:
    (folder / "from").write_text("another process")
    print("writing", flush=True)
    sys.stdin.readline()
"""


@pytest.fixture
def disk(monkeypatch):
    """What is put on the disk and what is renamed, in their order, by paths."""
    done = []
    sync, rename = os.fsync, os.replace

    def synced(number):
        done.append(("sync", os.readlink(f"/proc/self/fd/{number}")))
        sync(number)

    def renamed(old, new):
        done.append(("rename", str(new)))
        rename(old, new)

    monkeypatch.setattr(os, "fsync", synced)
    monkeypatch.setattr(os, "replace", renamed)
    return done


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="names of open files are read from /proc")
class TestPowerCut:
    """A name that is on the disk before its content is an empty file after a power cut."""

    def test_all_of_a_folder_is_on_the_disk_before_its_name_and_its_name_before_the_end(self, disk, tmp_path):
        with published(tmp_path / "out") as folder:
            (folder / "deep").mkdir()
            (folder / "deep" / "weights").write_bytes(b"0" * 9000)
            (folder / "card").write_text("text")
        place = disk.index(("rename", str(tmp_path / "out")))
        before = {Path(name).name for kind, name in disk[:place] if kind == "sync"}
        assert {"weights", "card", "deep", folder.name} <= before
        assert ("sync", str(tmp_path)) in disk[place:]

    def test_a_file_is_on_the_disk_before_its_name_and_its_name_before_the_end(self, disk, tmp_path):
        write_json(tmp_path / "current.json", {"model": "new"})
        (first, name), (second, final), (third, folder) = disk
        assert (first, second, third) == ("sync", "rename", "sync")
        assert name.endswith(".unfinished")
        assert (final, folder) == (str(tmp_path / "current.json"), str(tmp_path))


def test_new_files_have_the_permissions_that_the_umask_gives(tmp_path):
    """As safetensors writes them, nobody but who trained could serve them."""
    before = os.umask(0o027)
    try:
        with published(tmp_path / "out") as folder:
            (folder / "dev").mkdir()
            for name, mode in (("weights", 0o600), ("script", 0o700), ("dev/vectors", 0o600)):
                (folder / name).write_text("")
                (folder / name).chmod(mode)
    finally:
        os.umask(before)
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in (tmp_path / "out").rglob("*")}
    assert modes == {"weights": 0o640, "script": 0o740, "dev": 0o750, "vectors": 0o640}
    assert stat.S_IMODE((tmp_path / "out").stat().st_mode) == 0o750


def test_two_processes_do_not_write_into_one_folder(tmp_path):
    other = subprocess.Popen(
        [sys.executable, "-c", ELSEWHERE, str(tmp_path / "out")],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert other.stdout.readline() == "writing\n"
    with published(tmp_path / "out") as folder:
        assert not list(folder.iterdir())
        (folder / "from").write_text("this process")
    _, error = other.communicate("go on\n")
    assert other.returncode == 1
    assert "exists already: name a new one" in error
    assert (tmp_path / "out" / "from").read_text() == "this process"
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_what_a_killed_process_left_is_removed_and_what_a_living_one_writes_is_not(tmp_path):
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    names = {pid: tmp_path / f".out.{platform.node()}-{pid}.unfinished" for pid in (ended.pid, os.getppid())}
    others = [tmp_path / ".other.unfinished", tmp_path / f".out.{platform.node()}-models.unfinished"]
    for folder in (*names.values(), *others):
        folder.mkdir()
    with published(tmp_path / "out"):
        pass
    assert not names[ended.pid].exists()
    assert all(folder.exists() for folder in (names[os.getppid()], *others))


def test_what_a_process_left_of_a_file_when_it_was_killed_is_removed(tmp_path):
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    left = {pid: tmp_path / f".a.json.{platform.node()}-{pid}.unfinished" for pid in (ended.pid, os.getppid())}
    for file in left.values():
        file.write_text("half")
    write_json(tmp_path / "a.json", {})
    assert not left[ended.pid].exists()
    assert left[os.getppid()].exists()


def test_an_output_that_could_not_appear_is_refused_before_anything_is_made(tmp_path):
    (tmp_path / "link").symlink_to(tmp_path / "nowhere")
    with pytest.raises(FileExistsError, match="link exists already"), published(tmp_path / "link"):
        pytest.fail("it was made")
    with pytest.raises(ValueError, match="is too long: give it a shorter one"), running(tmp_path / ("a" * 240)):
        pytest.fail("it was run")
    with published(tmp_path / ("a" * 100)):
        pass


def test_a_folder_that_fails_leaves_nothing(tmp_path):
    with pytest.raises(KeyboardInterrupt), published(tmp_path / "models" / "out") as folder:
        (folder / "weights").write_text("half")
        raise KeyboardInterrupt
    assert not list((tmp_path / "models").iterdir())


def test_a_file_that_fails_leaves_the_one_before(tmp_path):
    write_json(tmp_path / "a.json", {"whole": True})
    with pytest.raises(KeyboardInterrupt), written(tmp_path / "a.json") as unfinished:
        unfinished.write_text('{"whole": fal')
        raise KeyboardInterrupt
    assert [path.name for path in tmp_path.iterdir()] == ["a.json"]
    assert json.loads((tmp_path / "a.json").read_text()) == {"whole": True}


def test_vectors_that_are_made_anew_do_not_change_under_a_process_that_reads_them(tmp_path):
    """A file that is written again is cut to nothing first: whoever has it mapped would die of SIGBUS."""
    first = stored_vectors(tmp_path / "v.npy", ["a"], lambda: np.ones((5000, 8), dtype=np.float32))
    second = stored_vectors(tmp_path / "v.npy", ["b"], lambda: np.zeros((2, 8), dtype=np.float32))
    assert first.shape == (5000, 8)
    assert first.sum() == 40_000
    assert second.shape == (2, 8)
    assert stored_vectors(tmp_path / "v.npy", ["b"], lambda: pytest.fail("they are there")).shape == (2, 8)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["v.npy", "v.sha256"]


def torch_writes(file):
    torch.save(torch.ones(100_000), file)


def safetensors_writes(file):
    save_file({"a": np.ones(100_000, dtype=np.float32)}, file)


@pytest.mark.skipif(sys.platform == "win32", reason="no limits for files")
@pytest.mark.parametrize("write", [torch_writes, safetensors_writes])
@pytest.mark.parametrize("around", [published, running])
def test_a_disk_that_is_full_is_named_whatever_a_library_says(tmp_path, write, around):
    import resource

    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    with pytest.raises(OSError, match="the disk is full .*: make room and start again"), around(tmp_path / "out") as to:
        resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, limits[1]))
        try:
            write(to / "weights")
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, limits)


def test_a_store_on_a_full_disk_is_named_too(tmp_path):
    with pytest.raises(OSError, match="the disk is full"), full_disk_named(tmp_path / "not there yet"):
        msg = "database or disk is full"
        raise sqlite3.OperationalError(msg)


def test_another_error_of_a_library_stays_what_it_is(tmp_path):
    with pytest.raises(RuntimeError, match="shapes"), published(tmp_path / "out"):
        msg = "shapes differ"
        raise RuntimeError(msg)
