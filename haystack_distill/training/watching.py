"""Who is told how a training goes. Nothing of it changes a result, so that a killed run may go on with others."""

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from transformers.integrations.integration_utils import INTEGRATION_TO_CALLBACK, get_available_reporting_integrations

TENSORBOARD_PLACE = "TENSORBOARD_LOGGING_DIR"
"""Where transformers' callback for TensorBoard writes: by default beside the checkpoints, which are removed."""


@dataclass(frozen=True)
class Watchers:
    """
    Who watches.

    :param report_to: Names of trackers, as `TrainingArguments` takes them.
    :param callbacks: transformers' `TrainerCallback`s, or their classes.
    """

    report_to: list[str] = field(default_factory=list)
    callbacks: Sequence[Any] = ()


_watchers: ContextVar[Watchers] = ContextVar("watchers", default=Watchers())  # noqa: B039 - it is frozen


def watchers() -> Watchers:
    """Who watches the training that is about to begin."""
    return _watchers.get()


@contextmanager
def watched_by(
    output: str | Path, report_to: str | Sequence[str] | None, callbacks: Sequence[Any] | None
) -> Iterator[None]:
    """
    Let trackers and callbacks watch what is trained in the block.

    :param output: The folder that is made: what is written for TensorBoard goes into its neighbour `...-tensorboard`.
    :raises ValueError: If a tracker is not known, or its package not installed.
    """
    names = trackers(report_to)
    place = os.environ.get(TENSORBOARD_PLACE)
    if "tensorboard" in names and place is None:
        os.environ[TENSORBOARD_PLACE] = f"{output}-tensorboard"
    before = _watchers.set(Watchers(names, list(callbacks or [])))
    try:
        yield
    finally:
        _watchers.reset(before)
        if place is None:
            os.environ.pop(TENSORBOARD_PLACE, None)


def trackers(report_to: str | Sequence[str] | None) -> list[str]:
    """The names of trackers; a ValueError if one is not known, or its package not installed."""
    names = [report_to] if isinstance(report_to, str) else list(report_to or [])
    for name in names:
        if name not in INTEGRATION_TO_CALLBACK:
            known = ", ".join(INTEGRATION_TO_CALLBACK)
            msg = f"report_to names {name!r}, which transformers can't report to: take {known}."
            raise ValueError(msg)
        if name not in get_available_reporting_integrations():
            msg = f"report_to names {name!r}, whose package is not installed: install it, or leave it out."
            raise ValueError(msg)
    return names
