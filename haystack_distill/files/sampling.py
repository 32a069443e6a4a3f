"""Samples that keep their order."""

import random
from typing import Any


def sample(everything: list[Any], count: int, seed: int | str) -> list[Any]:
    """Draw some, in their order."""
    if len(everything) <= count:
        return everything
    chosen = random.Random(seed).sample(range(len(everything)), count)  # noqa: S311 - a sample, not a secret
    return [everything[place] for place in sorted(chosen)]
