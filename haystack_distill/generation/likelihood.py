"""How likely another model finds generated texts, for generators that don't tell."""

from haystack_distill.generation.filters import Candidate
from haystack_distill.teachers.prompts import UnscorableError
from haystack_distill.teachers.scores import Candidates, Teacher

TEXTS_AT_ONCE = 16


def likelihoods(teacher: Teacher, candidates: list[Candidate], mode: str) -> list[float]:
    """
    Mean log-likelihoods of texts given what they were written for; minus infinity for what can't be scored.

    :raises ValueError: If the teacher's signal does not suit the mode.
    """
    wanted = {"questions": "question", "responses": "response"}.get(mode)
    signal = teacher.identity.get("signal")
    if wanted is None or signal != wanted:
        suits = f"the signal {wanted!r}" if wanted else "questions or responses only"
        msg = f"The likelihood_scorer of {mode} has the signal {signal!r}: it takes {suits}."
        raise ValueError(msg)
    rows = [
        Candidates(candidate.text, [candidate.sources[0]], [])
        if mode == "questions"
        else Candidates("\n".join(candidate.sources), [candidate.text], [])
        for candidate in candidates
    ]
    scores: list[float] = []
    for start in range(0, len(rows), TEXTS_AT_ONCE):
        scores += _scores(teacher, rows[start : start + TEXTS_AT_ONCE])
    return scores


def _scores(teacher: Teacher, rows: list[Candidates]) -> list[float]:
    try:
        return [float(scored.scores[0]) for scored in teacher.score(rows)]
    except UnscorableError:
        if len(rows) > 1:
            return [score for row in rows for score in _scores(teacher, [row])]
        return [float("-inf")]
