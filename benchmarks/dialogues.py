"""Parts of dialogues for benchmarks."""

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

from haystack_distill.data.dialogues import Context

PIECE = 8


def spread(contexts: Iterable[Context], count: int) -> list[Context]:
    """Some contexts, evenly over the dialogues."""
    every = list(contexts)
    return [every[int(place)] for place in np.linspace(0, len(every) - 1, min(count, len(every)))]


def some_dialogues(source: Path, contexts: int, target: Path) -> Path:
    """Write pieces of dialogues, evenly over the file, that have about so many contexts together."""
    dialogues = [json.loads(line) for line in source.read_text(encoding="utf-8").splitlines() if line.strip()]
    pieces = [middle(one) for one in dialogues]
    chosen = min(len(pieces), round(contexts * len(pieces) / sum(len(one["turns"]) - 1 for one in pieces)))
    lines = [json.dumps(pieces[int(at)], ensure_ascii=False) for at in np.linspace(0, len(pieces) - 1, max(1, chosen))]
    target.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return target


def middle(dialogue: dict[str, Any]) -> dict[str, Any]:
    """A dialogue's middle, of `PIECE` turns: many dialogues say more than a few long ones."""
    start = max(0, (len(dialogue["turns"]) - PIECE) // 2)
    return {**dialogue, "turns": dialogue["turns"][start : start + PIECE]}
