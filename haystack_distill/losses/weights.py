"""Weighted sums of losses, by name, and what stops them."""

from collections.abc import Collection, Mapping
from typing import Any

from haystack_distill.losses.table import Loss


class DivergedError(ValueError):
    """The loss is no number any more."""


def checked_weights(weights: Mapping[str, float], names: Collection[str]) -> dict[str, float]:
    """
    Make numbers of the weights, since a hand-written `1e-5` arrives from YAML as a string, and refuse unknown names.

    :param names: The names that are known, such as `RETRIEVER` of `losses/table.py`.
    :raises ValueError: If there is none, a name is not known, or a weight is not a positive number.
    """
    unknown = set(weights) - set(names)
    if unknown or not weights:
        msg = f"The loss {sorted(unknown)[0] if unknown else 'without a name'!r} is not known: use {', '.join(names)}."
        raise ValueError(msg)
    numbers = {name: float(weight) for name, weight in weights.items()}
    if not all(0 < weight < float("inf") for weight in numbers.values()):
        msg = f"The weights of the losses must be positive numbers: {dict(weights)}."
        raise ValueError(msg)
    return numbers


def weighted_sum(weights: Mapping[str, float], rows: Mapping[str, Loss], given: Mapping[str, Any]) -> Any:
    """Call each loss with what its row says that it needs, and add up the weighted values."""
    total: Any = 0.0
    for name, weight in weights.items():
        total = total + weight * rows[name].load()(*(given[need] for need in rows[name].needs))
    return total
