"""Components inside of components: Haystack looks after the outer ones alone."""

from typing import Any


def warm_up(*parts: Any) -> None:
    """Warm up those that can be, in their order; None stands for one that is not there."""
    for part in parts:
        if hasattr(part, "warm_up"):
            part.warm_up()


def close(*parts: Any) -> None:
    """Close those that can be, in their order; None stands for one that is not there."""
    for part in parts:
        if hasattr(part, "close"):
            part.close()
