# SPDX-FileCopyrightText: 2026-present haystack-distill contributors
#
# SPDX-License-Identifier: Apache-2.0

"""Weighted sums of losses, by name, and what stops them."""

from collections.abc import Mapping, Sequence


class DivergedError(ValueError):
    """The loss is no number any more."""


def checked_weights(weights: Mapping[str, float], names: Sequence[str]) -> dict[str, float]:
    """
    Make numbers of the weights and refuse unknown names.

    :param weights: Loss name -> weight; a hand-written `1e-5` arrives from YAML as a string and is read as a number.
    :param names: The names that are known.
    :returns: The weights as floats.
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
