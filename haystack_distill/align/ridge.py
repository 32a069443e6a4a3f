"""
A token table in closed form: ridge regression from the tokens of a text to the teacher's vector of it.

A table's vector is linear in how often a text holds each token, so the table with the least squared error is the
solution of a linear system and needs no gradient descent. What is solved for is the difference to the untrained table:
a token that the texts lack keeps what the teacher makes of it, and a rare one stays near that.
"""

import logging
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from scipy import sparse
from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer.modules import Normalize

from haystack_distill.evaluation.evaluators import IndexRetrievalEvaluator
from haystack_distill.evaluation.measures import listed
from haystack_distill.training.trainer import METRIC

logger = logging.getLogger(__name__)

PENALTIES = (1.0, 0.3, 0.1, 0.03)
"""What a squared change of the table costs, in units of a text's mean squared length; each is measured on dev."""

TOLERANCE = 1e-3
"""Up to which part of the error of the untrained table a system is solved."""

COLUMNS, MOST_STEPS = 64, 1000
"""Dimensions that are solved for at once, so that they stay in a processor's cache; and steps at most."""


@dataclass(frozen=True)
class Solved:
    """
    What was solved for.

    :param scores: Penalty -> dev nDCG@10.
    :param penalty: The best one; None if the untrained table was better than all of them, and stays.
    """

    scores: dict[float, float]
    penalty: float | None
    seconds: float

    @property
    def by_penalty(self) -> dict[str, float]:
        """The scores by what files and logs call a penalty, such as `0.03`."""
        return {f"{penalty:g}": score for penalty, score in self.scores.items()}


@torch.no_grad()
def solve_table(
    table: SentenceTransformer,
    texts: list[str],
    vectors: np.ndarray,
    evaluator: IndexRetrievalEvaluator,
    known: Sequence[str] = (),
) -> Solved:
    """
    Give a token table the rows that come nearest to the teacher's vectors; the penalty is selected on dev.

    :param table: Untrained, from `make_student`, or solved before; it is changed in place.
    :param vectors: What it should make of the texts, `[texts, dim]`.
    :param known: Texts of which it should make what it makes of them now, at the mean length of the vectors.
    """
    start = time.perf_counter()
    static: Any = table[0]
    weight = static.embedding.weight
    counts = token_counts(table, texts)
    best, score, penalty = weight.cpu().numpy().copy(), evaluator(table)[METRIC], None
    if known:
        before = token_counts(table, [*known])
        prior = best * (np.linalg.norm(vectors, axis=1).mean() / np.linalg.norm(before @ best, axis=1).mean())
        missing = np.vstack([vectors - counts @ prior, np.zeros((len(known), vectors.shape[1]), dtype=np.float32)])
        counts = sparse.vstack([counts, before], format="csr")
    else:
        untrained = counts @ best
        prior = best * (abs(np.vdot(untrained, vectors)) / np.vdot(untrained, untrained))
        missing = vectors - counts @ prior
    used = np.unique(counts.indices)
    scores = {}
    for tried, change in ridge_path(counts[:, used], missing, PENALTIES):
        rows = prior.copy()
        rows[used] += change
        weight.copy_(torch.from_numpy(rows))
        scores[tried] = evaluator(table)[METRIC]
        if scores[tried] > score:
            best, score, penalty = rows, scores[tried], tried
    weight.copy_(torch.from_numpy(best))
    solved = Solved(scores, penalty, time.perf_counter() - start)
    logger.info("Ridge regression over %d texts: dev nDCG@10 by penalty %s.", len(texts), listed(solved.by_penalty))
    return solved


def token_counts(table: SentenceTransformer, texts: list[str]) -> sparse.csr_array:
    """
    Count the tokens of texts as a table sees them, `[texts, vocabulary]`.

    Where the table normalises, only the direction of a row counts: counts enter as their square roots, so that a word
    that a sentence repeats does not drown the others, and rows have length 1. Otherwise a row is what the table
    multiplies with, the mean.
    """
    bags = [Counter(encoding.ids) for encoding in table.tokenizer.encode_batch(texts, add_special_tokens=False)]
    normalized = isinstance(table[-1], Normalize)
    values = [
        np.sqrt(np.array([*bag.values()], dtype=np.float32) / bag.total())
        if normalized
        else np.array([*bag.values()], dtype=np.float32) / bag.total()
        for bag in bags
        if bag
    ]
    starts = np.cumsum([0, *map(len, bags)])
    tokens = np.array([token for bag in bags for token in bag], dtype=np.int64)
    shape = (len(texts), table.tokenizer.get_vocab_size())
    return sparse.csr_array((np.concatenate([np.zeros(0, np.float32), *values]), tokens, starts), shape=shape)


def ridge_path(
    inputs: sparse.csr_array, targets: np.ndarray, penalties: tuple[float, ...]
) -> Iterator[tuple[float, np.ndarray]]:
    """
    Solve `(X'X + penalty * s I) W = X'Y` for each penalty, where `s` is the mean squared length of the rows of X.

    By conjugate gradients with a diagonal preconditioner (Saad, Iterative Methods for Sparse Linear Systems, section
    9.2), all columns side by side, each solution from that of the penalty before. There is nothing random in it.

    :param inputs: X, `[texts, tokens]`.
    :param targets: Y, `[texts, dim]`.
    :param penalties: Falling, for the systems get harder.
    """
    transposed = inputs.T.tocsr()
    squares = transposed.multiply(transposed).sum(axis=1)
    unit = squares.sum() / inputs.shape[0]
    blocks = [
        np.ascontiguousarray(targets[:, first : first + COLUMNS]) for first in range(0, targets.shape[1], COLUMNS)
    ]
    solutions = [np.zeros((inputs.shape[1], block.shape[1]), dtype=np.float32) for block in blocks]
    for penalty in penalties:
        damped = np.float32(penalty * unit)
        diagonal = (squares + damped)[:, None]
        for solution, block in zip(solutions, blocks, strict=True):
            _descend(inputs, transposed, damped, diagonal, transposed @ block, solution)
        yield penalty, np.hstack(solutions)


def _descend(
    inputs: sparse.csr_array,
    transposed: sparse.csr_array,
    damped: np.float32,
    diagonal: np.ndarray,
    wanted: np.ndarray,
    solution: np.ndarray,
) -> None:
    """Conjugate gradients: solve for all columns of `wanted`, in place."""

    def dots(left: np.ndarray, right: np.ndarray) -> np.ndarray:
        return np.einsum("ij,ij->j", left, right)

    enough = TOLERANCE**2 * dots(wanted, wanted / diagonal)
    residual = wanted - transposed @ (inputs @ solution) - damped * solution
    scaled = residual / diagonal
    direction, size = scaled.copy(), dots(residual, scaled)
    tiny = np.finfo(np.float32).tiny  # a column that is solved stays as it is
    for _ in range(MOST_STEPS):
        if (size <= enough).all():
            return
        product = transposed @ (inputs @ direction) + damped * direction
        step = size / np.maximum(dots(direction, product), tiny)
        solution += step * direction
        residual -= step * product
        scaled = residual / diagonal
        size, before = dots(residual, scaled), size
        direction = scaled + size / np.maximum(before, tiny) * direction
    logger.warning("Ridge regression did not reach its tolerance in %d steps.", MOST_STEPS)
