"""Components inside of components: Haystack looks after the outer ones alone."""

from collections.abc import Mapping
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


def inputs_of(part: Any) -> Mapping[str, Any]:
    """What a component takes, by name; nothing of what is no component."""
    sockets = getattr(part, "__haystack_input__", None)
    return sockets._sockets_dict if sockets else {}
