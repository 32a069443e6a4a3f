"""
Every long job, killed, interrupted, without room, with another beside it: what is left when it is started again?

    python -m benchmarks.faults --json FILE [--job NAME] [--fault NAME] [--trials N] [--quick] [--inputs N]

A trial does a job in a process of its own, with a fault, and then again without one until it ends. `equal`: what it
made is what a run without a fault made, to the bit (without times; pages by presence), and nothing else is left.
`refused_with_sentence`: it does not go on, and says why in a sentence of its own. `lost`: anything else that it made,
or a foreign error. `stuck`: it does not end. `foreign` counts the trials in which the fault itself, such as a full
disk, was not told in a sentence. `--inputs` gives every reader of `benchmarks.broken_files` so many broken files.

Faults: `kill_at_operation` and `kill_at_time` (kill -9 once to three times in a row, before a change of the file system
or at any time), `terminate` (SIGTERM), `interrupt` (Ctrl-C), `full_disk` (a tmpfs that is too small, then larger;
where none can be mounted, files that may not grow), `read_only` (another user's folder), `two_processes`,
`torn_write` (kill -9, and the file that was written last is cut at any length). POSIX only; some need root.
"""

import os
import random
import shutil
import signal
import subprocess
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from tempfile import mkdtemp
from typing import Annotated, Any

import typer

from benchmarks.common import print_rows, read_rows, write_rows
from benchmarks.fault_processes import Ending, Process, Reference, content_of, size_of

COLUMNS = (
    ("job", "job", ""),
    ("fault", "fault", ""),
    ("trials", "trials", "d"),
    ("equal", "equal", "d"),
    ("refused with a sentence", "refused_with_sentence", "d"),
    ("lost", "lost", "d"),
    ("stuck", "stuck", "d"),
    ("foreign", "foreign", "d"),
)
RESTARTS = 4
NOBODY = 65534
PAGE = 4096
"""Bytes in which a tmpfs counts."""


def reference_of(job: Any, made: Path, place: Path) -> Reference:
    """Do a job twice without a fault; what differs between the two does not count."""
    contents, size, largest, changes, seconds = [], 0, 0, 0, 0.0
    for number in range(2):
        folder = place / "trial" / "work"
        folder.mkdir(parents=True)
        _start(job, made, folder)
        process = Process(job, made, folder)
        while os.waitid(os.P_PID, process.number, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None:
            try:
                held = size_of(folder)
            except FileNotFoundError:
                continue
            size, largest = max(size, held[0]), max(largest, held[1])
            time.sleep(0.02)
        ending = process.wait()
        if ending.code != 0:
            msg = f"Run {number} without a fault ended with {ending}."
            raise RuntimeError(msg)
        contents.append(content_of(folder))
        changes, seconds = process.told["changes"], process.seconds
        shutil.rmtree(place / "trial")
        for name in process.told["modules"]:  # once for all trials
            with suppress(Exception):
                import_module(name)
    one, other = contents
    stable = {name: value if other.get(name) == value else None for name, value in one.items()}
    return Reference(stable, seconds, changes, size, largest)


def _start(job: Any, made: Path, folder: Path) -> None:
    """What a job starts from, made in a process of its own, as this one must not use what does not survive a fork."""
    number = os.fork()
    if not number:
        code = 1
        try:
            job.start(made, folder)
            code = 0
        finally:
            os._exit(code)
    if os.waitstatus_to_exitcode(os.waitpid(number, 0)[1]):
        msg = "the start of the job could not be made"
        raise RuntimeError(msg)


@dataclass
class Trial:
    """A job, where it is done, and what chance decides."""

    job: Any
    made: Path
    folder: Path
    reference: Reference
    draw: random.Random

    def begin(self, **settings: Any) -> Process:
        """Start the job."""
        return Process(self.job, self.made, self.folder, **settings)

    def moment(self) -> float:
        """A moment of the job."""
        return self.draw.uniform(0.02, 1.0) * self.reference.seconds


def kill_at_operation(trial: Trial) -> Ending:
    """Kill -9 before a change of the file system, up to three times in a row."""
    for _ in range(trial.draw.choice([1, 1, 2, 3])):
        ending = trial.begin(kill_at=trial.draw.randint(1, trial.reference.changes)).wait()
    return ending


def _signalled(number: int, times: tuple[int, ...]) -> Callable[[Trial], Ending]:
    def fault(trial: Trial) -> Ending:
        for _ in range(trial.draw.choice(times)):
            process = trial.begin()
            time.sleep(trial.moment())
            process.signal(number)
            ending = process.wait()
        return ending

    return fault


def full_disk(trial: Trial) -> Ending:
    """A disk that is too small, and later is not."""
    share = trial.draw.uniform(0.1, 0.95)
    if trial.folder.parent.is_mount():
        disk = os.statvfs(trial.folder)
        used, needed = (disk.f_blocks - disk.f_bfree) * disk.f_frsize, trial.reference.size - size_of(trial.folder)[0]
        _resize(trial.folder.parent, used + int(share * max(needed, 8 * PAGE)) // PAGE * PAGE)
        ending = trial.begin().wait()
        _resize(trial.folder.parent, 2**30)
        return ending
    return trial.begin(limit=max(1, int(share * trial.reference.largest))).wait()


def _resize(disk: Path, size: int) -> None:
    subprocess.run(["mount", "-o", f"remount,size={size}", str(disk)], check=True)  # noqa: S607


def read_only(trial: Trial) -> Ending:
    """A folder of another user."""
    mode = trial.folder.stat().st_mode
    trial.folder.chmod(0o555)
    ending = trial.begin(user=NOBODY if os.getuid() == 0 else 0).wait()
    trial.folder.chmod(mode)
    return ending


def two_processes(trial: Trial) -> Ending:
    """The same job twice at once."""
    first = trial.begin()
    time.sleep(trial.draw.uniform(0, 0.5) * trial.reference.seconds)
    second = trial.begin()
    endings = [first.wait(), second.wait()]
    return next((one for one in endings if one.foreign or one.code is None), endings[0])


def torn_write(trial: Trial) -> Ending:
    """
    Kill -9, and what was written last is not whole.

    What is not hidden has been put on the disk: a power cut leaves it.
    """
    process = trial.begin()
    time.sleep(trial.moment())
    process.signal(signal.SIGKILL)
    ending = process.wait()
    files = [path for path in trial.folder.rglob("*") if path.is_file() and path.stat().st_size]
    files = [path for path in files if any(part[0] == "." for part in path.relative_to(trial.folder).parts)]
    if files:
        last = max(files, key=lambda path: path.stat().st_mtime_ns)
        os.truncate(last, trial.draw.randrange(last.stat().st_size))
    return ending


FAULTS: dict[str, Callable[[Trial], Ending]] = {
    "kill_at_operation": kill_at_operation,
    "kill_at_time": _signalled(signal.SIGKILL, (1, 1, 2, 3)),
    "terminate": _signalled(signal.SIGTERM, (1,)),
    "interrupt": _signalled(signal.SIGINT, (1,)),
    "full_disk": full_disk,
    "read_only": read_only,
    "two_processes": two_processes,
    "torn_write": torn_write,
}


def tried(fault: str, job: Any, made: Path, place: Path, reference: Reference, seed: str) -> tuple[str, str, str]:
    """
    Do one trial.

    :returns: `equal`, `refused_with_sentence`, `lost` or `stuck`; why; and what was foreign in the fault itself.
    """
    disk = place / "trial"
    folder = disk / "work"
    disk.mkdir()
    mounted = (
        fault == "full_disk"
        and not subprocess.run(
            ["mount", "-t", "tmpfs", "-o", "size=1g", "none", str(disk)],  # noqa: S607
            check=False,
            capture_output=True,
        ).returncode
    )
    try:
        folder.mkdir()
        _start(job, made, folder)
        trial = Trial(job, made, folder, reference, random.Random(seed))
        ending = FAULTS[fault](trial)
        foreign = ending.foreign or ""
        if ending.code is None:
            return "stuck", "the run with the fault does not end", foreign
        return (*_afterwards(trial, ending), foreign)
    finally:
        if mounted:
            subprocess.run(["umount", "-l", str(disk)], check=True)  # noqa: S607
        shutil.rmtree(disk, ignore_errors=True)
        for said in place.glob("said-*"):
            said.unlink()


def _afterwards(trial: Trial, ending: Ending) -> tuple[str, str]:
    if ending.code != 0:
        for _ in range(RESTARTS):
            ending = trial.begin().wait()
            if ending.code == 0:
                break
    if ending.code is None:
        return "stuck", "it does not end when it is started again"
    if ending.foreign:
        return "lost", ending.foreign
    if ending.sentence:
        return "refused_with_sentence", ending.sentence
    if ending.code != 0:
        return "lost", f"it ended with {ending.code}"
    try:
        found = content_of(trial.folder)
    except ValueError as error:
        return "lost", f"what is there is damaged: {error}"
    expected = trial.reference.content
    differing = [name for name in {**expected, **found} if (name in expected) != (name in found)]
    differing += [name for name, value in expected.items() if value is not None and found.get(name, value) != value]
    return ("lost", f"it made another {differing[:5]}") if differing else ("equal", "")


def table(jobs: dict[str, Any], faults: list[str], trials: int, made: Path, file: Path | None) -> list[dict[str, Any]]:
    """Try all jobs with all faults; rows that an earlier run has written are kept."""
    rows = read_rows(file)
    known = {(row["job"], row["fault"]) for row in rows}
    for job_name, job in jobs.items():
        left = [fault for fault in faults if (job_name, fault) not in known]
        if not left:
            continue
        place = Path(mkdtemp())
        place.chmod(0o755)
        reference = reference_of(job, made, place)
        for fault in left:
            row: dict[str, Any] = {"job": job_name, "fault": fault, "trials": trials, "why": []}
            row |= dict.fromkeys(("equal", "refused_with_sentence", "lost", "stuck", "foreign"), 0)
            for number in range(trials):
                outcome, why, foreign = tried(fault, job, made, place, reference, f"{job_name} {fault} {number}")
                row[outcome] += 1
                row["foreign"] += bool(foreign)
                row["why"] += sorted({text for text in (why, foreign) if text} - set(row["why"]))
            rows.append(row)
            write_rows(file, rows)
            print(*(f"{key}={row[key]}" for _, key, _ in COLUMNS), *row["why"], flush=True)
        shutil.rmtree(place, ignore_errors=True)
    return rows


def main(
    json: Annotated[Path | None, typer.Option(help="Where rows are kept; a table that was stopped goes on.")] = None,
    job: Annotated[list[str] | None, typer.Option(help="Only these jobs.")] = None,
    fault: Annotated[list[str] | None, typer.Option(help="Only these faults.")] = None,
    trials: Annotated[int, typer.Option(help="How many of each job and fault.")] = 50,
    quick: Annotated[bool, typer.Option(help="One trial of each job and fault.")] = False,
    inputs: Annotated[int, typer.Option(help="Instead: how many broken files for every reader.")] = 0,
) -> None:
    """Kill every job in every way, or give every reader broken files."""
    if inputs:
        from benchmarks.broken_files import READERS, run

        rows = [{"reader": name, **run(reader, inputs)} for name, reader in READERS.items()]
        write_rows(json, rows)
        columns = (
            ("reader", "reader", ""),
            ("read", "read", "d"),
            ("refused", "refused", "d"),
            ("s", "slowest", ".3f"),
        )
        print_rows(rows, columns, "Broken files")
        return
    from benchmarks.fault_jobs import JOBS, prepare

    made = Path(mkdtemp())
    made.chmod(0o755)
    number = os.fork()
    if not number:
        prepare(made)
        os._exit(0)
    if os.waitstatus_to_exitcode(os.waitpid(number, 0)[1]):
        msg = "the models could not be made"
        raise RuntimeError(msg)
    jobs = {name: one for name, one in JOBS.items() if not job or name in job}
    print_rows(table(jobs, fault or list(FAULTS), 1 if quick else trials, made, json), COLUMNS, "Faults")
    shutil.rmtree(made, ignore_errors=True)


if __name__ == "__main__":
    typer.run(main)
