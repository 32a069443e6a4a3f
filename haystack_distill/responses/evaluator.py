"""How well responses are chosen: the human response among a hundred candidates."""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer.evaluation import SentenceEvaluator

METRIC = "dev_hits@1"
"""The key of the measure in what the evaluator returns."""

CANDIDATES = 100
ROWS = 256


def ranks_among(
    contexts: np.ndarray, responses: np.ndarray, texts: Sequence[str], candidates: int = CANDIDATES, seed: int = 0
) -> np.ndarray:
    """
    Rank the human response to each context among responses to other contexts.

    :param contexts: Vectors of the contexts, `[contexts, dim]`.
    :param responses: Vectors of the human responses, `[contexts, dim]`.
    :param texts: The responses: one that reads like the human response is no candidate against it.
    :param candidates: How many candidates there are, the human response included.
    :returns: How many candidates score at least as high as the human response, `[contexts]`; 0 is a hit at 1.
    :raises ValueError: If there is no other response.
    """
    ranks = [
        np.sum(responses[drawn] @ contexts[row] >= responses[row] @ contexts[row])
        for row, drawn in enumerate(rivals_of(texts, candidates, seed))
    ]
    return np.array(ranks, dtype=np.int64)


def rivals_of(texts: Sequence[str], candidates: int = CANDIDATES, seed: int = 0) -> Iterator[np.ndarray]:
    """For each human response the places in `texts` that it is ranked among; a ValueError if there is no other one."""
    names = np.unique(np.asarray(texts, dtype=object).astype(str), return_inverse=True)[1]
    if names.max(initial=0) == 0:
        msg = "Responses are ranked among others, and there is no other: give at least two different ones."
        raise ValueError(msg)
    random = np.random.default_rng(seed)
    for name in names:
        others = np.flatnonzero(names != name)
        yield random.choice(others, min(candidates - 1, len(others)), replace=False)


class ResponseEvaluator(SentenceEvaluator):
    """The share of contexts whose human response comes first of a hundred candidates (hits@1, which G2R selects by)."""

    def __init__(
        self, contexts: Sequence[str], responses: Sequence[str], candidates: int = CANDIDATES, seed: int = 0
    ) -> None:
        super().__init__()
        self.contexts = list(contexts)
        self.responses = list(responses)
        self.candidates = candidates
        self.seed = seed
        self.primary_metric = METRIC

    def __call__(  # type: ignore[override]
        self, model: SentenceTransformer, output_path: str | None = None, epoch: int = -1, steps: int = -1
    ) -> dict[str, float]:
        """Measure `dev_hits@1` and `dev_hits@5` of a student; the other parameters are the trainer's and not used."""
        del output_path, epoch, steps
        options: dict[str, Any] = {"normalize_embeddings": True, "show_progress_bar": False, "batch_size": ROWS}
        contexts, responses = model.encode(self.contexts, **options), model.encode(self.responses, **options)
        ranks = ranks_among(contexts, responses, self.responses, self.candidates, self.seed)
        return {METRIC: float(np.mean(ranks < 1)), "dev_hits@5": float(np.mean(ranks < 5))}
