"""What the processes of `torchrun` or `accelerate launch` do together, and what one of them does for all."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

LONGEST_WAIT = timedelta(days=7)
"""How long processes wait for the one that labels."""


def process_count() -> int:
    """How many processes were started."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def process_number() -> int:
    """Which of them this is, from 0."""
    return int(os.environ.get("RANK", "0"))


def wait_for_all() -> None:
    """Wait until every process is here."""
    if process_count() == 1:
        return
    import torch  # takes a second, and most who ask for the number of a process need no torch

    if torch.distributed.is_initialized():
        torch.distributed.barrier()


def of_all_processes(value: Any) -> list[Any]:
    """What each process has here, in their order; all of them must ask."""
    if process_count() == 1:
        return [value]
    import torch

    found: list[Any] = [None] * process_count()
    torch.distributed.all_gather_object(found, value)
    return found


def share_of_mean(count: int) -> float:
    """
    By what a mean over this process's part is multiplied, so that the mean of all processes is the one over everything.

    :param count: How many figures its part has.
    """
    return count * process_count() / sum(of_all_processes(count))


@contextmanager
def first_process_first(*, cpu: bool) -> Iterator[None]:
    """Let the first process do something while the others wait; they do it after the first and find it done."""
    if process_count() == 1:
        yield
        return
    from accelerate import PartialState

    with PartialState(cpu=cpu, timeout=LONGEST_WAIT).main_process_first():
        yield
