"""
The losses that a setting may name, one row each; settings, messages, the weighted sums and the docs' list follow them.

Rows are read without torch: a loss is loaded when it is asked for. `RetrieverLoss` and `AlignmentLoss` hand it what it
needs.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from importlib import import_module


@dataclass(frozen=True)
class Loss:
    """
    A row.

    :param name: The loss `x` is the function `x_loss` of the file `x.py` beside this one.
    :param compares: What it compares, for the docs' list.
    :param needs: What of a batch it is called with, in the order of its parameters.
    """

    name: str
    compares: str
    needs: tuple[str, ...]

    def load(self) -> Callable:
        """Import the loss."""
        function: Callable = getattr(import_module(f"haystack_distill.losses.{self.name}"), f"{self.name}_loss")
        return function


def _by_name(*rows: Loss) -> dict[str, Loss]:
    return {row.name: row for row in rows}


RETRIEVER = _by_name(
    Loss(
        "listwise",
        "the teacher's distribution over the candidates with the student's over the *index*",
        ("pool_scores", "positions", "teacher"),
    ),
    Loss("kl", "both over the candidates only: DKRR as published", ("scores", "teacher")),
    Loss(
        "margin_mse",
        "differences of scores to the teacher's favourite, relative to the teacher's",
        ("scores", "teacher", "teacher_margin"),
    ),
    Loss("emdr2", "the likelihood of the answer, with the passage summed out", ("scores", "teacher")),
    Loss(
        "contrastive",
        "the teacher's favourite with mined hard negatives (positive-aware, 5 % margin) and those of the batch",
        ("scores", "batch_scores", "is_favourite"),
    ),
)
"""The losses that a retriever is distilled with. Weighted alike they pull about alike."""

ALIGNMENT = _by_name(
    Loss("mse", "the vectors: their squared distance", ("student", "teacher", "teacher_norm")),
    Loss("cosine", "the directions of the vectors", ("student", "teacher")),
    Loss(
        "index_ranking",
        "the softmax of each over the documents of the index",
        ("student", "teacher", "documents", "ranking_temperature"),
    ),
    Loss(
        "kale",
        "each vector as a distribution over its dimensions: KALE as published",
        ("student", "teacher", "temperature"),
    ),
)
"""The losses that a student is aligned with."""


def mines_negatives(names: Iterable[str]) -> bool:
    """Whether one of these losses of a retriever compares with mined negatives."""
    return any("batch_scores" in RETRIEVER[name].needs for name in names)
