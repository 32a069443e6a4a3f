"""
What is handed to `SentenceTransformerTrainer` to train a query encoder and a document encoder together.

While they are trained the two are the routes of one `Router`, so that one loss and one optimiser move both.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from sentence_transformers import SentenceTransformer, SentenceTransformerTrainingArguments
from sentence_transformers.base.modules import Router
from sentence_transformers.base.sampler import BatchSamplers, NoDuplicatesBatchSampler
from sentence_transformers.sentence_transformer.losses import (
    CachedMultipleNegativesRankingLoss,
    MultipleNegativesRankingLoss,
)
from sentence_transformers.util import cos_sim, dot_score

from haystack_distill.data.index import IndexView
from haystack_distill.evaluation.evaluators import ReembeddingEvaluator
from haystack_distill.files.precision import bf16_is_fast
from haystack_distill.files.processes import process_count
from haystack_distill.training.trainer import TrainingSummary, common_arguments, run_trainer, shared_batches

ROUTES = {"query": "query", "positive": "document", "negative": "document"}
"""Column of the training rows -> the encoder that reads it."""

TEMPERATURE = 0.05
"""Of the softmax over similarities of vectors of length 1, sentence-transformers' own."""


@dataclass(frozen=True)
class AsymmetricTraining:
    """
    How two encoders are trained together.

    :param batch_size: Rows a step, over all devices; the positives of the others are each row's negatives. What is
        left over at the end of an epoch waits for the next.
    :param mini_batch_size: Texts in memory at once, through gradient caching (arXiv 2101.06983), for batches that do
        not fit otherwise; the result is the same. None computes each batch at once, which is faster.
    :param learning_rate: Peak rate, after a warm-up over 5 % of the steps, falling linearly to 0.
    """

    epochs: int = 3
    batch_size: int = 32
    mini_batch_size: int | None = None
    learning_rate: float = 1e-4
    seed: int = 0


def similarity_function(similarity: str) -> Any:
    """How an index ranks, for sentence-transformers; `euclidean` ranks vectors of length 1 as the dot product does."""
    return cos_sim if similarity == "cosine" else dot_score


def routed(query: SentenceTransformer, document: SentenceTransformer, prompts: dict[str, str]) -> SentenceTransformer:
    """Join two encoders, which still share their modules with it; `prompts` has the prefixes of both sides."""
    sides: tuple[Any, Any] = (query, document)
    router = Router.for_query_document(query_modules=list(sides[0]), document_modules=list(sides[1]))
    return SentenceTransformer(modules=[router], device=str(query.device), prompts=prompts)


def train_routes(
    student: SentenceTransformer,
    rows: Dataset,
    evaluator: ReembeddingEvaluator,
    index: IndexView,
    checkpoints: Path,
    settings: AsymmetricTraining,
    *,
    progress: bool = True,
) -> TrainingSummary:
    """
    Train both encoders in place; they end as their best checkpoint on dev.

    The loss is the cross-entropy of the positive among all documents of the batch. Under `torchrun` the batch is split
    over the processes and documents are gathered for the loss, so that it stays what one process would compute.

    :param student: From `routed`.
    :param rows: `query`, `positive` and perhaps `negative`.
    :param index: How it ranks, and whether its vectors have length 1, shape the loss.
    :param checkpoints: Where checkpoints are kept; a run that finds some goes on from the last complete one.
    """
    shape = {
        "scale": 1 / TEMPERATURE if index.normalized or index.similarity == "cosine" else 1.0,
        "similarity_fct": similarity_function(index.similarity),
        "gather_across_devices": process_count() > 1,
    }
    loss = (
        CachedMultipleNegativesRankingLoss(student, mini_batch_size=settings.mini_batch_size, **shape)
        if settings.mini_batch_size
        else MultipleNegativesRankingLoss(student, **shape)
    )
    return run_trainer(student, rows, loss, evaluator, _arguments(student, rows, checkpoints, settings, progress))


def check_batches(rows: Dataset, batch_size: int) -> None:
    """
    Make sure that there is a step to train.

    No text comes twice in a batch, and a batch that can't be filled is left out: of many questions about few passages
    none may be left.

    :raises ValueError: If no batch can be filled.
    """
    if len(rows) < batch_size or _fills(rows, batch_size):
        return
    fitting = batch_size
    while fitting > 1 and not _fills(rows, fitting):
        fitting //= 2
    msg = (
        f"batch_size={batch_size} can't be filled: the {len(rows)} training rows are about few passages, and none may "
        f"come twice in a batch. Set batch_size={fitting}, or give questions about more passages."
    )
    raise ValueError(msg)


def _fills(rows: Dataset, batch_size: int) -> bool:
    batches = NoDuplicatesBatchSampler(rows, batch_size, drop_last=True, generator=torch.Generator())
    return next(iter(batches), None) is not None


def _arguments(
    student: SentenceTransformer, rows: Dataset, checkpoints: Path, settings: AsymmetricTraining, progress: bool
) -> SentenceTransformerTrainingArguments:
    columns = {column: ROUTES[column] for column in rows.column_names}
    prompts = {column: prompt for column, task in columns.items() if (prompt := student.prompts.get(task))}
    return SentenceTransformerTrainingArguments(
        **common_arguments(student, checkpoints, settings.seed, progress),
        **shared_batches(settings.batch_size),
        num_train_epochs=settings.epochs,
        dataloader_drop_last=len(rows) >= settings.batch_size,
        batch_sampler=BatchSamplers.NO_DUPLICATES,  # another question's positive may be this one's too
        router_mapping=columns,
        prompts=prompts or None,
        learning_rate=settings.learning_rate,
        warmup_steps=0.05,
        bf16=bf16_is_fast(student.device),
    )
