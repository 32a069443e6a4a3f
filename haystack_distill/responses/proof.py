"""How well a retriever of responses chooses, beside what it was: each context a query, its human reply relevant."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from sentence_transformers import SentenceTransformer

from haystack_distill.data.beir import Qrels
from haystack_distill.data.index import IndexView
from haystack_distill.data.similarity import has_length_one
from haystack_distill.evaluation.comparison import LATENCY_QUERIES, Measured, student_system
from haystack_distill.evaluation.proof import UNTOUCHED, Evidence
from haystack_distill.evaluation.quality import Quality, Run, groups_of, latency_ms
from haystack_distill.responses.evaluator import rivals_of

HIT = "hits@1"
DEPTH = 10


def evidence_of(
    untouched: SentenceTransformer,
    student: SentenceTransformer,
    dev: Sequence[tuple[str, str]],
    seconds: float,
    seed: int,
) -> tuple[Evidence, dict[str, Any]]:
    """Measure a retriever and what became of it on (context, human reply); also, for which index the student is."""
    contexts, replies = (list(texts) for texts in zip(*dev, strict=True))
    ids = [str(row) for row in range(len(dev))]
    queries = dict(zip(ids, contexts, strict=True))
    # Contexts with one reply have one relevant document, so that they are resampled together.
    first = {reply: row for row, reply in reversed(list(zip(ids, replies, strict=True)))}
    qrels = {row: {first[reply]: 1} for row, reply in zip(ids, replies, strict=True)}
    systems = student_system(UNTOUCHED, untouched), student_system("student", student, seconds)
    single = {system.name: (lambda text, system=system: system.encode([text])) for system in systems}
    milliseconds = latency_ms(single, contexts[:LATENCY_QUERIES])
    measured = {}
    for system, model in zip(systems, (untouched, student), strict=True):
        vectors = [np.asarray(model.encode(texts, show_progress_bar=False)) for texts in (contexts, replies)]
        run, ranks = _ranked(_directions(vectors[0]), _directions(vectors[1]), qrels, seed, replies)
        measured[system.name] = Measured(system, quality_of(ranks, qrels), milliseconds[system.name], run)
    index = IndexView(ids, replies, vectors[1], "cosine", fingerprint="")
    made_for = {"dim": index.dim, "similarity": "cosine", "normalized": has_length_one(np.concatenate(vectors))}
    return Evidence(measured, index, queries, qrels, seed, UNTOUCHED), made_for


def quality_of(ranks: np.ndarray, qrels: Qrels) -> Quality:
    """The measures of replies, each from how many candidates are at least as near as the human one (`ranks_among`)."""
    near = ranks < DEPTH
    per_query = {
        "ndcg@10": np.where(near, 1 / np.log2(ranks + 2), 0.0),
        "recall@10": near.astype(float),
        "mrr@10": np.where(near, 1 / (ranks + 1), 0.0),
        HIT: (ranks < 1).astype(float),
    }
    return Quality(per_query, list(qrels), groups_of(qrels))


def _ranked(
    contexts: np.ndarray, replies: np.ndarray, qrels: Qrels, seed: int, texts: list[str]
) -> tuple[Run, np.ndarray]:
    """The candidates of each context with their scores, and how many score at least as high as the human reply."""
    run: Run = {}
    ranks = []
    for row, (query_id, rivals) in enumerate(zip(qrels, rivals_of(texts, seed=seed), strict=True)):
        human, others = float(replies[row] @ contexts[row]), replies[rivals] @ contexts[row]
        ranks.append(int(np.sum(others >= human)))
        run[query_id] = {str(place): float(score) for place, score in zip(rivals, others, strict=True)}
        run[query_id][next(iter(qrels[query_id]))] = human
    return run, np.array(ranks)


def _directions(vectors: np.ndarray) -> np.ndarray:
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True).clip(min=1e-12)
