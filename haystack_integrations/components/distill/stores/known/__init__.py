"""The kinds of document stores that are known, a module each: whatever lies in this folder and offers a `KIND`."""

import pkgutil
from importlib import import_module
from typing import Any

from haystack_integrations.components.distill.stores.base import StoreKind

_MODULES = (import_module(f"{__name__}.{module.name}") for module in pkgutil.iter_modules(__path__))

KINDS: dict[str, StoreKind] = {module.KIND.name: module.KIND for module in _MODULES}
"""Class name -> what is known of such stores."""


def kind_named(name: str) -> StoreKind:
    """Give what is known of stores of a class, by its name or import path; of others, what all have in common."""
    return KINDS.get(name.rsplit(".", 1)[-1], StoreKind())


def kind_of(store: Any) -> StoreKind:
    """Give what is known of a store, or of the class that it extends; of others, what all have in common."""
    names = (base.__name__ for base in type(store).__mro__)
    return next((KINDS[name] for name in names if name in KINDS), StoreKind())
