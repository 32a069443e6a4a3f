# SPDX-FileCopyrightText: 2026-present haystack-distill contributors
#
# SPDX-License-Identifier: Apache-2.0

"""How well replies are chosen: the human reply among a hundred candidates."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer.evaluation import SentenceEvaluator

METRIC = "dev_hits@1"
"""The key of the measure in what the evaluator returns."""

CANDIDATES = 100
ROWS = 256


def ranks_among(
    contexts: np.ndarray, replies: np.ndarray, texts: Sequence[str], candidates: int = CANDIDATES, seed: int = 0
) -> np.ndarray:
    """
    Rank the human reply to each context among replies to other contexts.

    :param contexts: Vectors of the contexts, `[contexts, dim]`.
    :param replies: Vectors of the human replies, `[contexts, dim]`.
    :param texts: The replies: one that reads like the human reply is no candidate against it.
    :param candidates: How many candidates, the human reply included.
    :param seed: Of the candidates.
    :returns: How many candidates score at least as high as the human reply, `[contexts]`; 0 is a hit at 1.
    :raises ValueError: If there is no other reply.
    """
    names = np.unique(np.asarray(texts, dtype=object).astype(str), return_inverse=True)[1]
    if names.max(initial=0) == 0:
        msg = "Replies are ranked among others, and there is no other: give at least two different replies."
        raise ValueError(msg)
    random = np.random.default_rng(seed)
    ranks = np.zeros(len(contexts), dtype=np.int64)
    for row, name in enumerate(names):
        others = np.flatnonzero(names != name)
        drawn = random.choice(others, min(candidates - 1, len(others)), replace=False)
        ranks[row] = np.sum(replies[drawn] @ contexts[row] >= replies[row] @ contexts[row])
    return ranks


class ResponseEvaluator(SentenceEvaluator):
    """
    The share of contexts whose human reply comes first among a hundred candidates (hits@1, as G2R selects models).

    :param contexts: Contexts, as they are given to the student.
    :param replies: The human reply to each.
    :param candidates: How many candidates, the human reply included.
    :param seed: Of the candidates.
    """

    def __init__(
        self, contexts: Sequence[str], replies: Sequence[str], candidates: int = CANDIDATES, seed: int = 0
    ) -> None:
        super().__init__()
        self.contexts = list(contexts)
        self.replies = list(replies)
        self.candidates = candidates
        self.seed = seed
        self.primary_metric = METRIC

    def __call__(  # type: ignore[override]
        self, model: SentenceTransformer, output_path: str | None = None, epoch: int = -1, steps: int = -1
    ) -> dict[str, float]:
        """
        Measure a student.

        :param model: The student.
        :param output_path: Not used.
        :param epoch: Not used.
        :param steps: Not used.
        :returns: `dev_hits@1` and `dev_hits@5`.
        """
        del output_path, epoch, steps
        options: dict[str, Any] = {"normalize_embeddings": True, "show_progress_bar": False, "batch_size": ROWS}
        contexts, replies = model.encode(self.contexts, **options), model.encode(self.replies, **options)
        ranks = ranks_among(contexts, replies, self.replies, self.candidates, self.seed)
        return {METRIC: float(np.mean(ranks < 1)), "dev_hits@5": float(np.mean(ranks < 5))}
