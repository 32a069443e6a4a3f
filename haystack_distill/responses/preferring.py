"""
What a chat model prefers of the replies of two systems, asked in both orders.

Language models choose by position as well as by content (arXiv 2306.05685, section 3.3), so each pair is asked both
ways round. What the position decides cancels out, and is reported: a judge whose answers agree on few pairs says
little.
"""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from haystack_distill.evaluation.quality import Quality
from haystack_distill.files.folders import published, write_json
from haystack_distill.files.runs import already_made, claim, fingerprint, running
from haystack_distill.files.shapes import read_json
from haystack_distill.generation.job import generated
from haystack_distill.generation.requests import Generator, Request
from haystack_distill.responses.judging import SystemResponses, contexts_of_all

PREFERENCES, SAID = "preferences.json", "said.json"
QUESTION = (
    "Somebody replies to the last line of this conversation:\n\n{dialogue}\n\nReply A: {first}\nReply B: {second}\n\n"
    "Which reply makes more sense here and says more about it? Answer with A or B, and nothing else."
)
ANSWER = re.compile(r"\b([AB])\b")


def preferences(
    systems: Sequence[SystemResponses],
    generator: Generator,
    output: str | Path,
    *,
    most: int = 100,
    seed: int = 0,
    progress: bool = True,
) -> dict[str, Any]:
    """
    Ask a chat model which reply it prefers; a killed run goes on where it was.

    :param systems: The first is what the others are compared with.
    :param output: The folder to make: `preferences.json`, and what the model said.
    :param most: Contexts at most, drawn from those that all systems responded to.
    :returns: `contexts`; `first`, its name; `over_first`: for each later system `preferred`, the share of contexts in
        which it is preferred over the first (a half for equal replies, and where the two orders disagree or nothing
        was chosen), with `low` and `high`, a 95 % interval over the contexts; `consistent`, the share of pairs on which
        both orders agree; `first_shown`, how often the reply that was shown first was chosen (0.5 without bias);
        `unclear`, the share of answers that choose nothing.
    :raises ValueError: As `contexts_of_all`; or if nothing that the model said is a choice.
    :raises ConnectionError: If the generator can't be reached; what it said is kept.
    """
    shared = contexts_of_all(systems, most, seed)
    pairs = {
        (other.name, key): (systems[0].responses[key], other.responses[key]) for other in systems[1:] for key in shared
    }
    requests = [
        Request(_id(name, key, order), (_question(systems[0].contexts[key], *texts[::order]),), (seed,))
        for (name, key), texts in pairs.items()
        if texts[0] != texts[1]
        for order in (1, -1)
    ]
    run = {"generator": generator.identity, "requests": fingerprint([one.turns for one in requests], 32)}
    made_of = fingerprint(run, 32)
    path = Path(output)
    if already_made(path, PREFERENCES, made_of):
        return dict(read_json(path / PREFERENCES, dict[str, Any], "name another output."))
    with running(path) as workspace:
        claim(workspace, run)
        replies = generated(requests, generator, workspace / "replies.jsonl", progress=progress)
        said = {key: reply.texts[0].text if reply.texts else "" for key, reply in replies.items()}
        if said and not any(map(ANSWER.search, said.values())):
            name, example = generator.identity.get("model"), next(iter(said.values()))
            msg = f"{name} never answered A or B, but for example {example!r}: take a model that follows instructions."
            raise ValueError(msg)
        over_first = {
            other.name: _figures([_choices(said, other.name, key) for key in shared]) for other in systems[1:]
        }
        found = {"contexts": len(shared), "first": systems[0].name, "over_first": over_first, "made_of": made_of}
        with published(path) as folder:
            write_json(folder / PREFERENCES, found)
            write_json(folder / SAID, said)
    return found


def _id(name: str, key: str, order: int) -> str:
    return f"{key} {name} {'second' if order == 1 else 'first'}"  # where the reply of `name` is shown


def _question(turns: Sequence[str], first: str, second: str) -> str:
    return QUESTION.format(dialogue="\n".join(turns), first=first, second=second)


def _choices(said: dict[str, str], name: str, key: str) -> list[str]:
    """`A`, `B` or nothing, with the reply of a system shown second and then first; empty for equal replies."""
    answers = [ANSWER.search(said.get(_id(name, key, order), "")) for order in (1, -1)]
    return ["" if answer is None else answer[1] for answer in answers] if _id(name, key, 1) in said else []


def _figures(choices: list[list[str]]) -> dict[str, float]:
    """See `preferences`; each pair has what was chosen with the later system's reply second, and then first."""
    asked = [pair for pair in choices if pair]
    votes = {"BA": 1.0, "AB": 0.0}
    preferred = np.array([votes.get("".join(pair), 0.5) for pair in choices])
    interval = Quality({"preferred": preferred}, [str(number) for number in range(len(choices))]).summary()["preferred"]
    every = [choice for pair in asked for choice in pair]
    clear = [choice for choice in every if choice]
    return {
        "preferred": interval["value"],
        "low": interval["low"],
        "high": interval["high"],
        "consistent": float(np.mean(["".join(pair) in votes for pair in asked])) if asked else 1.0,
        "first_shown": clear.count("A") / len(clear) if clear else 0.5,
        "unclear": 1 - len(clear) / len(every) if every else 0.0,
    }
