"""What the teacher scorers share: documents in, documents with scores out."""

import asyncio
from collections.abc import Iterable
from dataclasses import replace
from threading import Lock
from typing import Any

from haystack import Document, component
from haystack.utils import ComponentDevice

from haystack_distill.teachers.prompts import Prompt
from haystack_distill.teachers.scores import Candidates, Teacher
from haystack_integrations.components.distill.parts.checking import check_query, check_top_k
from haystack_integrations.components.distill.parts.serialising import Serialisable

SCORE, CUT = "teacher_score", "teacher_cut"
"""Meta fields: the score, and True where the passage was too long to be read whole."""


class TeacherScorer(Serialisable):
    """A ranker by a teacher's scores and a labeller of training sets; each kind says in `_load` who its teacher is."""

    def keep_parameters(self, given: dict[str, Any], *, positive: Iterable[str] = ()) -> None:
        """Keep what `__init__` was given, with no teacher yet."""
        super().keep_parameters(given, positive=positive)
        self._teacher: Teacher | None = None
        self._lock = Lock()

    def _load(self) -> Teacher:
        raise NotImplementedError

    def _load_reader(self) -> Any:
        # Takes seconds to import, which a pipeline that only names a scorer need not wait for.
        from haystack_distill.teachers.readers import load_reader

        return load_reader(
            self.model,
            dtype=self.dtype,
            device=ComponentDevice.resolve_device(self.device).to_torch_str(),
            batch_size=self.batch_size,
            max_passage_tokens=self.max_passage_tokens,
        )

    def warm_up(self) -> None:
        """Load the model."""
        self.teacher()

    def teacher(self) -> Teacher:
        """The teacher of the engine, for `TeacherLabeller`; it is loaded once, whichever thread comes first."""
        with self._lock:
            if self._teacher is None:
                self._teacher = self._load()
            return self._teacher

    @component.output_types(documents=list[Document])
    def run(
        self, query: str, documents: list[Document], answers: list[str] | None = None, top_k: int | None = None
    ) -> dict[str, list[Document]]:
        """
        Score documents for a query, and put the best first.

        :param query: The query or, for `response`, `mi` and `pmi`, the dialogue so far.
        :param answers: Reference answers, for signals that need them: likelihoods read the first, similarities all.
        :returns: `documents` with the score in `score` and `meta["teacher_score"]`, the best first; those that were cut
            to fit have `meta["teacher_cut"]`. No documents in, none out.
        :raises ValueError: If the query or a document is empty, an id comes twice, a needed answer is missing, the
            query does not fit the model's window, or a score is not a number.
        """
        top_k = self.top_k if top_k is None else top_k
        _check(type(self).__name__, query, documents, top_k)
        return {"documents": _rank(self.teacher(), query, documents, answers, top_k) if documents else []}

    @component.output_types(documents=list[Document])
    async def run_async(
        self, query: str, documents: list[Document], answers: list[str] | None = None, top_k: int | None = None
    ) -> dict[str, list[Document]]:
        """
        Score documents in a worker thread.

        :param query: As for `run`.
        :param documents: As for `run`.
        :param answers: As for `run`.
        :returns: As `run`.
        :raises ValueError: As `run`.
        """
        return await asyncio.to_thread(self.run, query, documents, answers, top_k)

    def close(self) -> None:
        """Let go of the model."""
        with self._lock:
            self._teacher = None


def _check(scorer: str, query: str, documents: list[Document], top_k: int | None) -> None:
    """Refuse what can't be ranked, before a model is loaded."""
    check_query(query, scorer, "score documents for")
    check_top_k(top_k)
    seen: set[str] = set()
    for document in documents:
        if not (document.content or "").strip():
            msg = f"The document {document.id!r} has no text to score: remove it before {scorer}."
            raise ValueError(msg)
        if document.id in seen:
            msg = f"The document {document.id!r} comes twice: join lists with a DocumentJoiner, which keeps each once."
            raise ValueError(msg)
        seen.add(document.id)


def _rank(
    teacher: Teacher, query: str, documents: list[Document], answers: list[str] | None, top_k: int | None
) -> list[Document]:
    """Copies of documents with their scores, the best first; equal ones keep their order."""
    scored = teacher.score([Candidates(query, [document.content or "" for document in documents], answers or [])])[0]
    ranked = [
        replace(
            document,
            score=float(score),
            meta={**document.meta, SCORE: float(score), **({CUT: True} if number in scored.cut else {})},
        )
        for number, (document, score) in enumerate(zip(documents, scored.scores, strict=True))
    ]
    ranked.sort(key=lambda document: -document.meta[SCORE])
    return ranked[:top_k]


def prompt_of(prompt: str | dict[str, str] | None) -> Prompt | None:
    """Make a prompt of its text, or of `text`, `cue` and `item`; None stays None. A ValueError for other parts."""
    if prompt is None:
        return None
    try:
        return Prompt(prompt) if isinstance(prompt, str) else Prompt(**prompt)
    except TypeError as error:
        msg = f"A prompt has `text`, and perhaps `cue` and `item`: {error}."
        raise ValueError(msg) from error
