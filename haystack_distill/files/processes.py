# SPDX-FileCopyrightText: 2026-present haystack-distill contributors
#
# SPDX-License-Identifier: Apache-2.0

"""What the processes of `torchrun` or `accelerate launch` do together, and what one of them does for all."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta

import torch

PATIENCE = timedelta(days=7)
"""How long processes wait for the one that labels."""


def process_count() -> int:
    """How many processes were started."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def process_number() -> int:
    """Which of them this is, from 0."""
    return int(os.environ.get("RANK", "0"))


def wait_for_all() -> None:
    """Wait until every process is here."""
    if process_count() > 1 and torch.distributed.is_initialized():
        torch.distributed.barrier()


@contextmanager
def first_process_first(*, cpu: bool) -> Iterator[None]:
    """
    Let the first process do something while the others wait; they do it after it and find it done.

    :param cpu: Whether training runs on the CPU.
    """
    if process_count() == 1:
        yield
        return
    from accelerate import PartialState

    with PartialState(cpu=cpu, timeout=PATIENCE).main_process_first():
        yield
