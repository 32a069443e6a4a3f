# SPDX-FileCopyrightText: 2026-present haystack-distill contributors
#
# SPDX-License-Identifier: Apache-2.0

"""Several query encoders against one index, on the same queries: the figures that a metrics file and a report hold."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from sentence_transformers import SentenceTransformer

from haystack_distill.data.beir import Qrels
from haystack_distill.data.index import IndexView
from haystack_distill.evaluation.quality import Quality, Run, compare, latency_ms, measure, own_rows, ranking, search
from haystack_distill.files.layout import versions
from haystack_distill.students.bi_encoder import BiEncoder
from haystack_distill.students.cutting import find_stack
from haystack_distill.students.prompt import prompt_for
from haystack_distill.students.token_table import is_table

LATENCY_QUERIES = 60


@dataclass(frozen=True)
class System:
    """
    A query encoder under test.

    :param name: Its name in tables and pictures.
    :param encode: Texts -> vectors, `[texts, dim]`.
    :param layers: How many layers it has, 0 for a token table.
    :param training_seconds: What it cost to train; None if it was not trained here.
    """

    name: str
    encode: Callable[[list[str]], np.ndarray]
    layers: int
    training_seconds: float | None = None


@dataclass(frozen=True)
class Measured:
    """
    What was measured of a system.

    :param system: The system.
    :param quality: How well it ranks.
    :param encode_ms: Median milliseconds to encode one query.
    :param run: What it found.
    """

    system: System
    quality: Quality
    encode_ms: float
    run: Run

    def figures(self, seed: int = 0) -> dict[str, Any]:
        """
        The figures for a metrics file.

        :param seed: Of the bootstrap.
        """
        summary = self.quality.summary(seed)
        return {
            **{name: figure["value"] for name, figure in summary.items()},
            "intervals": {name: [figure["low"], figure["high"]] for name, figure in summary.items()},
            "encode_ms": self.encode_ms,
        }


def student_system(name: str, model: SentenceTransformer, training_seconds: float | None = None) -> System:
    """
    A saved or fresh student as a system.

    :param name: Its name.
    :param model: The student: applies its own prompt and normalisation.
    :param training_seconds: What it cost to train.
    """
    layers = 0 if is_table(model) else len(find_stack(model))
    prompt = prompt_for("query", model.prompts, model.default_prompt_name) or None

    def encode(texts: list[str]) -> np.ndarray:
        vectors = model.encode(texts, prompt=prompt, show_progress_bar=False, batch_size=64)
        return np.asarray(vectors, dtype=np.float32)

    return System(name, encode, layers, training_seconds)


def teacher_system(teacher: BiEncoder) -> System:
    """
    The teacher as a system.

    :param teacher: The teacher.
    """
    return System("teacher", teacher.encode_queries, len(find_stack(teacher.model)))


def run_of(system: System, index: IndexView, queries: dict[str, str], qrels: Qrels) -> Run:
    """
    What a system finds for the judged queries.

    :param system: The system.
    :param index: The index.
    :param queries: Query id -> text.
    :param qrels: Judgments; only judged queries are asked.
    :returns: The run; a query that is a document of the index is not in its own (see `own_rows`).
    """
    vectors = np.asarray(system.encode([queries[query_id] for query_id in qrels]))
    return search(index, list(qrels), vectors, own=own_rows(index, queries, qrels))


def measure_all(systems: list[System], index: IndexView, queries: dict[str, str], qrels: Qrels) -> dict[str, Measured]:
    """
    Measure systems on the same queries; latencies one query at a time, in turn.

    :param systems: The systems.
    :param index: The index.
    :param queries: Query id -> text.
    :param qrels: Judgments; only judged queries are used.
    :returns: Name -> what was measured.
    """
    texts = [queries[query_id] for query_id in qrels]
    runs = {system.name: run_of(system, index, queries, qrels) for system in systems}
    single = {system.name: _one_at_a_time(system) for system in systems}
    milliseconds = latency_ms(single, texts[:: max(1, len(texts) // LATENCY_QUERIES)][:LATENCY_QUERIES])
    return {
        system.name: Measured(system, measure(runs[system.name], qrels), milliseconds[system.name], runs[system.name])
        for system in systems
    }


def measure_move(
    before: System, after: System, index: IndexView, moved: IndexView, queries: dict[str, str], qrels: Qrels
) -> dict[str, Measured]:
    """
    Measure a retriever and what became of it, each against its own index; latencies in turn.

    :param before: The retriever as it was.
    :param after: What became of it.
    :param index: The index of the first.
    :param moved: That of the second: the same where documents did not move.
    :param queries: Query id -> text.
    :param qrels: Judgments.
    :returns: Name -> what was measured.
    """
    measured = measure_all([before, after], moved, queries, qrels)
    if moved is not index:
        run = run_of(before, index, queries, qrels)
        measured[before.name] = replace(measured[before.name], quality=measure(run, qrels), run=run)
    return measured


def _one_at_a_time(system: System) -> Callable[[str], np.ndarray]:
    return lambda text: system.encode([text])


def metrics(measured: dict[str, Measured], seed: int = 0, reference: str = "teacher") -> dict[str, Any]:
    """
    Figures of all systems; of the student (the last one) its share, speed-up and significance against the reference.

    :param measured: The systems, the reference among them.
    :param seed: Of the resampling.
    :param reference: What the student is compared with: its teacher, or the retriever as it was.
    :returns: The content of `metrics.json`, see docs/metrics.md.
    """
    before, student = measured[reference], list(measured.values())[-1]
    share = student.quality.mean() / before.quality.mean() if before.quality.mean() else float("nan")
    return {
        **{name: one.figures(seed) for name, one in measured.items()},
        f"share_of_{reference}": share,
        "speedup": before.encode_ms / student.encode_ms,
        "significance": compare(student.quality, before.quality, seed=seed),
        "queries": len(before.quality.query_ids),
        "seed": seed,
        "versions": versions(),
    }


def wins_and_losses(
    student: Measured, reference: Measured, queries: dict[str, str], qrels: Qrels, index: IndexView, count: int = 8
) -> dict[str, list[dict[str, Any]]]:
    """
    The queries on which the student gained or lost most, with the texts that matter.

    :param student: The student.
    :param reference: What it is compared with.
    :param queries: Query id -> text.
    :param qrels: Judgments.
    :param index: The index.
    :param count: How many of each.
    :returns: `wins` and `losses`: query, nDCG@10 of both, the relevant passage and what each found first.
    """
    differences = student.quality.per_query["ndcg@10"] - reference.quality.per_query["ndcg@10"]
    texts = dict(zip(index.ids, index.texts, strict=True))

    def row(number: int) -> dict[str, Any]:
        query_id = student.quality.query_ids[number]
        relevant = max(qrels[query_id], key=lambda document: qrels[query_id][document])
        return {
            "query": queries[query_id],
            "reference": float(reference.quality.per_query["ndcg@10"][number]),
            "student": float(student.quality.per_query["ndcg@10"][number]),
            "relevant": texts.get(relevant, ""),
            "reference_first": texts[ranking(reference.run[query_id])[0]],
            "student_first": texts[ranking(student.run[query_id])[0]],
        }

    order = np.argsort(differences, kind="stable")
    return {
        "wins": [row(int(number)) for number in order[::-1][:count] if differences[number] > 0],
        "losses": [row(int(number)) for number in order[:count] if differences[number] < 0],
    }
