# SPDX-FileCopyrightText: 2026-present haystack-distill contributors
#
# SPDX-License-Identifier: Apache-2.0

"""What the two teacher scorers share: documents in, documents with scores out."""

from dataclasses import replace
from typing import Any

from haystack import Document

from haystack_distill.teachers.prompts import Prompt
from haystack_distill.teachers.scores import Candidates, Teacher

SCORE, CUT = "teacher_score", "teacher_cut"
"""Meta fields: the score, and True where the passage was too long to be read whole."""


def check_rank(scorer: str, query: str, documents: list[Document], top_k: int | None) -> None:
    """
    Refuse what can't be ranked, before a model is loaded.

    :param scorer: Who asks.
    :param query: The query.
    :param documents: The documents.
    :param top_k: How many to return.
    :raises ValueError: If the query or a document is empty, an id comes twice, or top_k is below 1.
    """
    if not isinstance(query, str) or not query.strip():
        msg = f"The query is empty: {scorer} needs some text to score documents for."
        raise ValueError(msg)
    if top_k is not None and top_k < 1:
        msg = f"top_k must be at least 1, not {top_k}."
        raise ValueError(msg)
    seen: set[str] = set()
    for document in documents:
        if not (document.content or "").strip():
            msg = f"The document {document.id!r} has no text to score: remove it before {scorer}."
            raise ValueError(msg)
        if document.id in seen:
            msg = f"The document {document.id!r} comes twice: join lists with a DocumentJoiner, which keeps each once."
            raise ValueError(msg)
        seen.add(document.id)


def rank(
    teacher: Teacher, query: str, documents: list[Document], answers: list[str] | None, top_k: int | None
) -> list[Document]:
    """
    Score documents and put the best first; equal ones keep their order.

    :param teacher: The teacher.
    :param query: The query.
    :param documents: The documents.
    :param answers: Reference answers.
    :param top_k: How many to return; None for all.
    :returns: Copies with the score in `score` and `meta["teacher_score"]`.
    :raises ValueError: If they can't be scored.
    """
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
    """
    A prompt from YAML.

    :param prompt: Its text, or `text`, `cue` and `item`.
    :returns: The prompt; None for the signal's own.
    :raises ValueError: If it is no prompt.
    """
    if prompt is None:
        return None
    try:
        return Prompt(prompt) if isinstance(prompt, str) else Prompt(**prompt)
    except TypeError as error:
        msg = f"A prompt has `text`, and perhaps `cue` and `item`: {error}."
        raise ValueError(msg) from error


def plain_parameters(component: Any) -> dict[str, Any]:
    """
    Init parameters of a scorer, ready for `default_to_dict`.

    :param component: Keeps each under its own name.
    """
    own = {name: value for name, value in vars(component).items() if not name.startswith("_")}
    return {name: value.to_dict() if hasattr(value, "to_dict") else value for name, value in own.items()}
