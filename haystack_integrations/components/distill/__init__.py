"""Components, each imported when it is asked for; `__init__.pyi` says which there are and where."""

import re
from importlib import import_module
from pathlib import Path
from typing import Any

from haystack_distill.files.packages import extra_for

_TABLE = Path(__file__).with_suffix(".pyi").read_text(encoding="utf-8")
_WHERE = {name: module for module, name in re.findall(r"^from (\.\w+) import (\w+)", _TABLE, re.MULTILINE)}

__all__ = list(_WHERE)


def __getattr__(name: str) -> Any:
    """Import a component."""
    if name in _WHERE:
        try:
            return getattr(import_module(_WHERE[name], __name__), name)
        except ModuleNotFoundError as error:
            if (extra := extra_for(error)) is None:
                raise
            msg = f"{name} can't be had: {extra}"
            raise ImportError(msg) from error
    msg = f"haystack-distill has no {name}: it offers {', '.join(__all__)}."
    raise AttributeError(msg)


def __dir__() -> list[str]:
    return sorted(__all__)
