"""What is handed to `SentenceTransformerTrainer` to train a retriever on responses."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from datasets import Dataset
from sentence_transformers import SentenceTransformer, SentenceTransformerTrainingArguments
from sentence_transformers.sentence_transformer.losses import MultipleNegativesRankingLoss
from sentence_transformers.util import cos_sim

from haystack_distill.data.dialogues import HISTORY
from haystack_distill.data.training_set import Row
from haystack_distill.files.precision import bf16_is_fast
from haystack_distill.files.processes import process_count
from haystack_distill.files.sampling import sample
from haystack_distill.losses.g2r import G2RLoss
from haystack_distill.losses.mined_responses import MinedResponsesLoss
from haystack_distill.losses.temperature import entropy_temperature
from haystack_distill.responses.evaluator import METRIC
from haystack_distill.responses.rows import MINED, human_response, query_text, response_set
from haystack_distill.training.trainer import common_arguments, shared_batches

RECIPES = ("dialogues", "data", "model", "strong")
NEED_SCORES = frozenset({"model", "strong"})
SCALE = 20.0
"""Multiplies cosines, as sentence-transformers' contrastive losses do by default."""

ENTROPY = 0.5
"""The mean entropy of the teacher's softmax over the candidates in `strong`, as a share of the most possible."""

MARGIN_WEIGHT = 0.02
"""Weight of the teacher's margins in `strong`: more gives likelier responses and fewer human ones (decisions/0004)."""


@dataclass(frozen=True)
class G2RSettings:
    """
    How a retriever is trained on responses: the settings that `ResponseDistiller` explains.

    :param max_dev: The most contexts to select on, drawn over all dialogues that are not trained on.
    """

    recipe: str = "model"
    alpha: float = 0.1
    temperature: float | None = 1.0
    negatives: int = 512
    max_candidates: int = 10
    history: int = HISTORY
    max_dev: int = 1000
    epochs: int = 3
    batch_size: int = 48
    learning_rate: float = 5e-5
    seed: int = 0

    def __post_init__(self) -> None:
        if self.recipe not in RECIPES:
            msg = f"There is no recipe {self.recipe!r}: choose one of {', '.join(RECIPES)}."
            raise ValueError(msg)
        for name in ("negatives", "max_candidates", "history", "max_dev", "epochs", "batch_size"):
            if getattr(self, name) < 1:
                msg = f"{name} must be at least 1, not {getattr(self, name)}."
                raise ValueError(msg)


def make_rows(rows: list[Row], student: SentenceTransformer, settings: G2RSettings) -> tuple[Dataset, Any]:
    """Rows and their loss; a ValueError if no row has a human response, or mined ones where they are needed."""
    if settings.recipe == "dialogues":
        shared = process_count() > 1  # the replies of all processes compete
        contrastive = MultipleNegativesRankingLoss(
            student, scale=SCALE, similarity_fct=cos_sim, gather_across_devices=shared
        )
        return _pairs(rows, settings), contrastive
    if settings.recipe == "strong":
        return _mined(rows, settings), MinedResponsesLoss(student, weight=MARGIN_WEIGHT, scale=SCALE)
    loss = G2RLoss(
        student,
        list(response_set(rows).values()),
        negatives=settings.negatives,
        alpha=settings.alpha if settings.recipe == "model" else 0.0,
        temperature=_temperature(rows, settings) if settings.recipe == "model" else 1.0,
        scale=SCALE,
        similarity_fct=cos_sim,
        seed=settings.seed,
    )
    return _candidates(rows, settings), loss


def _places(row: Row, *, mined: bool) -> list[int]:
    """Where a row has mined responses, or its own, human and generated."""
    marks = row.labels or [0] * len(row.documents)
    return [place for place, mark in enumerate(marks) if (mark == MINED) == mined]


def _temperature(rows: list[Row], settings: G2RSettings) -> float:
    if settings.temperature is not None:
        return settings.temperature
    return entropy_temperature(
        [[(row.teacher_scores or [])[place] for place in _places(row, mined=False)] for row in rows], ENTROPY
    )


def _pairs(rows: list[Row], settings: G2RSettings) -> Dataset:
    pairs = [(query_text(row.query, settings.history), human_response(row)) for row in rows if human_response(row)]
    if len(pairs) < 2:
        msg = "No context has a response that is marked as the human one, and `dialogues` trains on these."
        raise ValueError(msg)
    return Dataset.from_dict({"query": [query for query, _ in pairs], "document": [text for _, text in pairs]})


def _candidates(rows: list[Row], settings: G2RSettings) -> Dataset:
    """One column a candidate; NaN where a context has fewer."""
    chosen = [
        sample(_places(row, mined=False), settings.max_candidates, f"{settings.seed} {row.query_id}") for row in rows
    ]
    width = max(map(len, chosen))
    columns: dict[str, list[Any]] = {"query": [query_text(row.query, settings.history) for row in rows]}
    for number in range(width):
        columns[f"document_{number + 1}"] = [
            row.documents[places[number]] if number < len(places) else ""
            for row, places in zip(rows, chosen, strict=True)
        ]
    columns["label"] = []
    for row, places in zip(rows, chosen, strict=True):
        scores = row.teacher_scores if settings.recipe == "model" and row.teacher_scores else [0.0] * len(row.documents)
        columns["label"].append([scores[place] for place in places] + [float("nan")] * (width - len(places)))
    return Dataset.from_dict(columns)


def _mined(rows: list[Row], settings: G2RSettings) -> Dataset:
    """Human responses and mined ones, best first, with the teacher's scores of these divided by its temperature."""
    # A margin is between two.
    rows = [row for row in rows if human_response(row) and len(_places(row, mined=True)) > 1]
    if len(rows) < 2:
        msg = (
            "No context has a human response and two mined ones, on which `strong` trains: give ResponseSetBuilder "
            "a `miner`, label that set, and train again."
        )
        raise ValueError(msg)
    width = min(len(_places(row, mined=True)) for row in rows)
    chosen = [
        sorted(
            sample(_places(row, mined=True), width, f"{settings.seed} {row.query_id}"),
            key=(row.teacher_scores or []).__getitem__,
            reverse=True,
        )
        for row in rows
    ]
    scores = [[(row.teacher_scores or [])[place] for place in places] for row, places in zip(rows, chosen, strict=True)]
    temperature = entropy_temperature(scores, ENTROPY)
    columns: dict[str, list[Any]] = {"query": [query_text(row.query, settings.history) for row in rows]}
    columns["human"] = [human_response(row) for row in rows]
    for number in range(width):
        columns[f"mined_{number + 1}"] = [row.documents[at[number]] for row, at in zip(rows, chosen, strict=True)]
    columns["label"] = [[score / temperature for score in of_row] for of_row in scores]
    return Dataset.from_dict(columns)


def arguments_for(
    student: SentenceTransformer, checkpoints: Path, settings: G2RSettings, progress: bool
) -> SentenceTransformerTrainingArguments:
    """How the trainer runs; its checkpoints go into a folder."""
    return SentenceTransformerTrainingArguments(
        **common_arguments(student, checkpoints, settings.seed, progress, METRIC),
        **shared_batches(settings.batch_size),
        num_train_epochs=settings.epochs,
        # A response that several contexts share must not be a negative of one of them.
        batch_sampler="batch_sampler" if settings.recipe in {"data", "model"} else "no_duplicates",
        learning_rate=settings.learning_rate,
        warmup_steps=0.05,
        bf16=bf16_is_fast(student.device),
    )
