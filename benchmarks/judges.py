"""
Judges of replies that are not the teacher: what other language models think of a reply.

Each judge has two figures. `NAME` is log p(reply | dialogue), the mean over the reply's tokens. `NAME-pmi` is
log p(reply | dialogue) - log p(reply), summed over its tokens: what the dialogue does for it. Likelihood alone ranks
the dull above what people say; a mean of the difference would rank the short above the long. What a figure is worth is
in the table itself: its rows `human` (what people replied) and `random` (what somebody said elsewhere) are the ends of
its scale.
"""

import json
from collections.abc import Sequence
from pathlib import Path

import typer

from haystack_distill.data.dialogues import Context
from haystack_distill.files.runs import fingerprint
from haystack_distill.teachers.likelihood import LikelihoodTeacher
from haystack_distill.teachers.readers import load_reader
from haystack_distill.teachers.scores import Candidates

AT_ONCE = 32


class Judge:
    """
    A language model that scores replies, and remembers what it scored.

    :param model: Folder, hub name or GGUF file; loaded when something new is to be scored.
    :param cache: A file of what was scored before, one a line.
    :param signal: `response` or `pmi`.
    """

    def __init__(self, name: str, model: str, cache: Path, *, signal: str, dtype: str | None = None) -> None:
        self.name, self.model, self.cache, self.dtype, self.signal = name, model, cache, dtype, signal
        self._known: dict[str, float] = {}
        self._teacher: LikelihoodTeacher | None = None
        if cache.is_file():
            self._known = dict(json.loads(line) for line in cache.read_text(encoding="utf-8").splitlines())

    def scores(self, contexts: Sequence[Context], replies: Sequence[str]) -> list[float]:
        """The figure of each reply to its context."""
        pairs = {
            fingerprint([self.signal, context.turns, reply]): Candidates("\n".join(context.turns), [reply], [])
            for context, reply in zip(contexts, replies, strict=True)
        }
        new = [key for key in pairs if key not in self._known]
        for start in range(0, len(new), AT_ONCE):
            self._score({key: pairs[key] for key in new[start : start + AT_ONCE]})
        return [
            self._known[fingerprint([self.signal, context.turns, reply])]
            for context, reply in zip(contexts, replies, strict=True)
        ]

    def _score(self, pairs: dict[str, Candidates]) -> None:
        if self._teacher is None:
            self._teacher = LikelihoodTeacher(load_reader(self.model, dtype=self.dtype), self.signal, name=self.name)
        scored = [float(one.scores[0]) for one in self._teacher.score(list(pairs.values()))]
        with self.cache.open("a", encoding="utf-8") as file:
            file.writelines(json.dumps(row) + "\n" for row in zip(pairs, scored, strict=True))
        self._known |= dict(zip(pairs, scored, strict=True))


def judges_of(named: Sequence[str], work: Path, dtype: str | None) -> list[Judge]:
    """Judges as the command line names them, with both figures of each."""
    return [
        Judge(figure, model, work / f"judge-{figure}.jsonl", signal=signal, dtype=dtype)
        for name, model in named_models(named).items()
        for figure, signal in ((name, "response"), (f"{name}-pmi", "pmi"))
    ]


def named_models(named: Sequence[str]) -> dict[str, str]:
    """NAME=MODEL of the command line: name -> model."""
    pairs = [one.partition("=") for one in named]
    for name, equals, model in pairs:
        if not name or not model:
            msg = f"A judge is named as NAME=MODEL, not {name + equals + model!r}."
            raise typer.BadParameter(msg)
    return {name: model for name, _, model in pairs}
