"""
Similarity to what a generator wrote: a teacher that needs a generator's texts, but not its likelihoods.

A passage's score is the mean cosine between it and the texts that were written for the query, which estimates how near
the generator expects a text to be: for replies, the expected similarity of SimSR (arXiv 2305.16852, section 3); for
answers, the hypothetical documents of HyDE (arXiv 2212.10496) as labels.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from sentence_transformers import SentenceTransformer

from haystack_distill.teachers.prompts import UnscorableError
from haystack_distill.teachers.scores import ROWS_THAT_SHARE, Candidates, Scored, check_candidates, check_finite

SIGNAL = "similarity"


class SimilarityTeacher:
    """
    Scores passages by their mean cosine to the answers of a query.

    A passage that is one of the answers is not compared with itself, so that it has no advantage over others.

    :param encoder: Embeds passages and answers alike.
    :param name: The encoder's name, for the identity.
    """

    def __init__(self, encoder: SentenceTransformer, *, name: str = "", batch_size: int = 32) -> None:
        self.encoder = encoder
        self.name = name
        self.batch_size = batch_size

    rows_at_once = ROWS_THAT_SHARE

    @property
    def identity(self) -> dict[str, Any]:
        """The encoder, and what is measured with it."""
        return {"model": self.name, "signal": SIGNAL}

    def score(self, rows: Sequence[Candidates]) -> list[Scored]:
        """
        Score the passages of several queries.

        :raises UnscorableError: If a row has no passage, no answer, or an answer as a passage and no other answer.
        """
        answers = [_answers_of(row) for row in rows]
        texts = list(
            dict.fromkeys(text for row, of_row in zip(rows, answers, strict=True) for text in [*row.passages, *of_row])
        )
        vectors = dict(zip(texts, self._encoded(texts), strict=True))
        scored = []
        for row, of_row in zip(rows, answers, strict=True):
            near = np.stack([vectors[text] for text in row.passages]) @ np.stack([vectors[text] for text in of_row]).T
            others = np.array([[answer != passage for answer in of_row] for passage in row.passages])
            scored.append(Scored(check_finite(row, (near * others).sum(1) / others.sum(1))))
        return scored

    def _encoded(self, texts: list[str]) -> np.ndarray:
        vectors = self.encoder.encode(
            texts, batch_size=self.batch_size, normalize_embeddings=True, show_progress_bar=False
        )
        return np.asarray(vectors, dtype=np.float64)


def _answers_of(row: Candidates) -> list[str]:
    """The answers of a row, each as often as it was written."""
    check_candidates(row, SIGNAL, answers=False)
    answers = [answer for answer in row.answers if answer.strip()]
    if not answers:
        msg = (
            f"The signal {SIGNAL!r} compares passages with what a generator wrote, and nothing was written for the "
            f"query {row.query!r}: run GenerativeAugmenter first."
        )
        raise UnscorableError(msg)
    alone = set(answers)
    if len(alone) == 1 and alone & set(row.passages):
        msg = (
            f"All that was written for the query {row.query!r} is one of its passages, which can't be compared with "
            "itself: have more texts written (n)."
        )
        raise UnscorableError(msg)
    return answers
