"""
People judge responses without knowing whose they are: a page that hides the systems, and what the verdicts say.

Each response is judged sensible or not, and specific or not, as in SSA (sensibleness and specificity average, arXiv
2001.09977); what is not sensible is not specific.
"""

import base64
import json
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from typing_extensions import TypedDict

from haystack_distill.evaluation.pages import page_of
from haystack_distill.files.json_lines import read_json_lines
from haystack_distill.files.shapes import checked
from haystack_distill.responses.rows import turns_of

MEASURES = ("sensible", "specific", "ssa")
RESAMPLES = 10_000


class _Box(TypedDict):
    sensible: bool
    specific: bool


class _Verdicts(TypedDict):
    """What a judge saved: for each context the boxes of its replies, in the order of the page."""

    key: str
    verdicts: dict[str, list[_Box]]


class _Key(TypedDict):
    """What the page hides: for each context the number of the system of each reply."""

    systems: list[str]
    orders: dict[str, list[int]]


@dataclass(frozen=True)
class SystemResponses:
    """What a system responded: context id -> turns, oldest first, and context id -> response."""

    name: str
    contexts: dict[str, list[str]]
    responses: dict[str, str]


def read_system(file: str | Path) -> SystemResponses:
    """
    Read the responses of a system.

    :param file: JSON lines `{"_id", "context": [turns], "reply"}`; the file's name is the name of the system.
    :raises FileNotFoundError: If there is no such file.
    :raises ValueError: If a line lacks a key, or an id comes twice.
    """
    path = Path(file)
    contexts: dict[str, list[str]] = {}
    responses: dict[str, str] = {}
    form = '{"_id", "context": [...], "reply"}'
    for number, row in read_json_lines(path, "replies are read from .jsonl files, one a system", form):
        where = f"{path}, line {number}"
        try:
            key, turns, response = str(row["_id"]), turns_of(row["context"]), row["reply"].strip()
        except (KeyError, TypeError, AttributeError) as error:
            msg = f"{where}: expected {form} ({error!r})."
            raise ValueError(msg) from error
        if key in responses:
            msg = f"{where}: the id {key!r} comes twice; a system responds once to each context."
            raise ValueError(msg)
        contexts[key], responses[key] = turns, response
    return SystemResponses(path.stem, contexts, responses)


def contexts_of_all(systems: Sequence[SystemResponses], most: int, seed: int) -> list[str]:
    """
    Contexts that all systems responded to, in random order.

    :param most: How many at most.
    :raises ValueError: If there are fewer than two systems, two have one name, they share no context, or they
        disagree on what a context is.
    """
    names = [system.name for system in systems]
    if len(names) < 2 or len(set(names)) < len(names):
        msg = f"A comparison needs at least two systems with names of their own (those of their files), not {names}."
        raise ValueError(msg)
    shared = [key for key in systems[0].responses if all(key in system.responses for system in systems)]
    if not shared:
        msg = f"The systems {', '.join(names)} have no context in common: their replies must use the same ids."
        raise ValueError(msg)
    first = systems[0].contexts
    differing = [key for key in shared if any(system.contexts[key] != first[key] for system in systems)]
    if differing:
        msg = f"The context {differing[0]!r} is not the same in all files: responses to others can't be compared."
        raise ValueError(msg)
    return random.Random(seed).sample(shared, min(most, len(shared)))  # noqa: S311 - an order, not a secret


def write_sheet(systems: Sequence[SystemResponses], output: str | Path, *, most: int = 100, seed: int = 0) -> int:
    """
    Write the page that people judge on.

    Contexts are those that all systems responded to, in random order; for each, the systems are in another order. Who
    said what is in the page, but not in a form that is read by accident.

    :param output: The `.html` file to write.
    :raises ValueError: As `contexts_of_all`.
    """
    chosen = contexts_of_all(systems, most, seed)
    names, first = [system.name for system in systems], systems[0].contexts
    shuffled = random.Random(seed)  # noqa: S311 - an order, not a secret
    orders = {key: shuffled.sample(range(len(systems)), len(systems)) for key in chosen}
    items = [
        {"id": key, "context": first[key], "replies": [systems[place].responses[key] for place in orders[key]]}
        for key in chosen
    ]
    # No tag and no comment of what was said may end the script that holds it.
    sheet = json.dumps({"items": items, "key": _hidden(names, orders)}).replace("<", "\\u003c")
    page = page_of("judging.html.j2", package="haystack_distill.responses", sheet=sheet)
    Path(output).write_text(page, encoding="utf-8")
    return len(items)


def unblinded(files: Sequence[str | Path], seed: int = 0) -> dict[str, Any]:
    """
    What judges said of each system.

    :param files: What the page saved, one file a judge.
    :returns: `contexts` and `judges`; `systems`: name -> `sensible`, `specific` and `ssa`, each with `value`, `low` and
        `high`, a 95 % bootstrap interval over the contexts; `differences`: the same for each later system minus the
        first.
    :raises FileNotFoundError: If a file is missing.
    :raises ValueError: If a file holds no verdicts, or the files are of different pages.
    """
    judged: dict[str, dict[str, list[list[float]]]] = {}
    names: list[str] = []
    for file in files:
        about, verdicts = _read_verdicts(Path(file))
        if names and about != names:
            msg = f"{file} is about {', '.join(about)}, the others about {', '.join(names)}: unblind them apart."
            raise ValueError(msg)
        names = about
        for key, of_systems in verdicts.items():
            for name, boxes in of_systems.items():
                judged.setdefault(key, {}).setdefault(name, []).append(boxes)
    # [contexts, systems, measures], the mean over the judges of a context.
    values = np.array([[np.mean(of_systems[name], axis=0) for name in names] for of_systems in judged.values()])
    values = np.concatenate([values, values.mean(axis=2, keepdims=True)], axis=2)
    drawn = np.random.default_rng(seed).integers(len(values), size=(RESAMPLES, len(values)))
    systems = {name: _intervals(values[:, place], drawn) for place, name in enumerate(names)}
    differences = {
        name: _intervals(values[:, place] - values[:, 0], drawn) for place, name in enumerate(names) if place
    }
    return {"contexts": len(values), "judges": len(files), "systems": systems, "differences": differences}


def _intervals(values: np.ndarray, drawn: np.ndarray) -> dict[str, dict[str, float]]:
    """The means of `[contexts, measures]` with their 95 % intervals."""
    intervals = {}
    for column, measure in enumerate(MEASURES):
        low, high = np.percentile(values[:, column][drawn].mean(axis=1), [2.5, 97.5])
        intervals[measure] = {"value": float(values[:, column].mean()), "low": float(low), "high": float(high)}
    return intervals


def _read_verdicts(file: Path) -> tuple[list[str], dict[str, dict[str, list[float]]]]:
    """Names of the systems, and context -> system -> sensible, specific."""
    if not file.is_file():
        msg = f"The verdicts {file} are missing: the page saves them as a .json file."
        raise FileNotFoundError(msg)
    fault, again = f"{file} holds no verdicts of a comparison page", ": save them again from the page."
    content = checked(file.read_bytes(), _Verdicts, fault, again)
    try:
        hidden = base64.b64decode(content["key"])
    except ValueError as error:
        msg = f"{fault} (key: {error}){again}"
        raise ValueError(msg) from error
    key = checked(hidden, _Key, fault, again)
    names, orders, judged = key["systems"], key["orders"], content["verdicts"]
    if not judged:
        msg = f"{file} holds no verdict yet: judge at least one context."
        raise ValueError(msg)
    every = list(range(len(names)))
    for context, boxes in judged.items():
        if not every or sorted(orders.get(context, [])) != every or len(boxes) != len(every):
            msg = f"{fault} (a context does not have every system once: {context!r}){again}"
            raise ValueError(msg)
    verdicts = {
        context: {
            names[place]: [float(box["sensible"]), float(box["sensible"] and box["specific"])]
            for place, box in zip(orders[context], boxes, strict=True)
        }
        for context, boxes in judged.items()
    }
    return names, verdicts


def _hidden(names: Sequence[str], orders: Mapping[str, Sequence[int]]) -> str:
    return base64.b64encode(json.dumps({"systems": list(names), "orders": orders}).encode()).decode()
