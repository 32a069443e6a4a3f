"""Several query encoders against one index, on the same queries: the figures that a metrics file and a report hold."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from sentence_transformers import SentenceTransformer

from haystack_distill.data.beir import Qrels
from haystack_distill.data.index import IndexView
from haystack_distill.evaluation.measures import MAIN
from haystack_distill.evaluation.quality import (
    DEPTH,
    Quality,
    Run,
    compare,
    latency_ms,
    measure,
    own_rows,
    ranking,
    search,
    share,
)
from haystack_distill.files.layout import versions
from haystack_distill.students.bi_encoder import BiEncoder
from haystack_distill.students.cutting import find_stack
from haystack_distill.students.prompt import prompt_for
from haystack_distill.students.token_table import is_table

LATENCY_QUERIES = 60


@dataclass(frozen=True)
class System:
    """
    A query encoder under test, or a whole retrieval.

    :param encode: Texts -> vectors, `[texts, dim]`; of a whole retrieval what it finds.
    :param layers: How many layers it has, 0 for a token table.
    :param training_seconds: What it cost to train; None if it was not trained here.
    """

    name: str
    encode: Callable[[list[str]], Any]
    layers: int
    training_seconds: float | None = None


@dataclass(frozen=True)
class Measured:
    """
    What was measured of a system; `encode_ms` is the median of milliseconds to encode one query.

    :param recovery: The share of its own exact top ten that a store returns; None where that was not measured.
    """

    system: System
    quality: Quality
    encode_ms: float
    run: Run
    recovery: float | None = None

    def figures(self, seed: int = 0) -> dict[str, Any]:
        """The figures for a metrics file."""
        summary = self.quality.summary(seed)
        return {
            **{name: figure["value"] for name, figure in summary.items()},
            "intervals": {name: [figure["low"], figure["high"]] for name, figure in summary.items()},
            "encode_ms": self.encode_ms,
            **({} if self.recovery is None else {"recovery": self.recovery}),
        }

    def against(self, reference: "Measured", seed: int = 0) -> dict[str, Any]:
        """How it compares with another system: `share`, `share_low`, `share_high`, `speedup` and `significance`."""
        kept = share(self.quality, reference.quality, seed=seed)
        return {
            "share": kept["value"],
            "share_low": kept["low"],
            "share_high": kept["high"],
            "speedup": reference.encode_ms / self.encode_ms,
            "significance": compare(self.quality, reference.quality, seed=seed),
        }


def student_system(name: str, model: SentenceTransformer, training_seconds: float | None = None) -> System:
    """A saved or fresh student as a system; it applies its own prompt and normalisation."""
    layers = 0 if is_table(model) else len(find_stack(model))
    prompt = prompt_for("query", model.prompts, model.default_prompt_name) or None

    def encode(texts: list[str]) -> np.ndarray:
        vectors = model.encode(texts, prompt=prompt, show_progress_bar=False, batch_size=64)
        return np.asarray(vectors, dtype=np.float32)

    return System(name, encode, layers, training_seconds)


def teacher_system(teacher: BiEncoder) -> System:
    """The teacher as a system."""
    return System("teacher", teacher.encode_queries, len(find_stack(teacher.model)))


def run_of(system: System, index: IndexView, queries: dict[str, str], qrels: Qrels, depth: int = DEPTH) -> Run:
    """What a system finds for the judged queries; a query that is a document of the index does not find itself."""
    vectors = np.asarray(system.encode([queries[query_id] for query_id in qrels]))
    return search(index, list(qrels), vectors, depth, own_rows(index, queries, qrels))


def measure_all(systems: list[System], index: IndexView, queries: dict[str, str], qrels: Qrels) -> dict[str, Measured]:
    """Measure systems on the same queries; latencies one query at a time, in turn."""
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
    """Measure a retriever in its index, and what became of it in its own, perhaps the same one; latencies in turn."""
    measured = measure_all([before, after], moved, queries, qrels)
    if moved is not index:
        run = run_of(before, index, queries, qrels)
        measured[before.name] = replace(measured[before.name], quality=measure(run, qrels), run=run)
    return measured


def _one_at_a_time(system: System) -> Callable[[str], np.ndarray]:
    return lambda text: system.encode([text])


def metrics(measured: dict[str, Measured], seed: int = 0, reference: str = "teacher") -> dict[str, Any]:
    """The content of `metrics.json`, see docs/metrics.md; the last system is compared with the reference."""
    before, student = measured[reference], list(measured.values())[-1]
    return {
        **{name: system.figures(seed) for name, system in measured.items()},
        **_compared(student, before, seed),
        "queries": len(before.quality.query_ids),
        "seed": seed,
        "versions": versions(),
    }


def beside(measured: Mapping[str, Measured], seed: int, reference: str) -> dict[str, Any]:
    """The figures of each system, and of each but the reference how it compares with that."""
    before = measured[reference]
    return {
        name: system.figures(seed) | ({} if system is before else _compared(system, before, seed))
        for name, system in measured.items()
    }


def _compared(student: Measured, before: Measured, seed: int) -> dict[str, Any]:
    compared = student.against(before, seed)
    return {f"share_of_{before.system.name}": compared.pop("share"), **compared}


def wins_and_losses(
    student: Measured, reference: Measured, queries: dict[str, str], qrels: Qrels, index: IndexView, count: int = 8
) -> dict[str, list[dict[str, Any]]]:
    """
    The queries on which the student gained or lost most, with the texts that matter.

    :returns: `wins` and `losses`: the query, the main measure of both, the relevant passage and what each found first.
    """
    ours, theirs = student.quality.per_query[MAIN.key], reference.quality.per_query[MAIN.key]
    texts = dict(zip(index.ids, index.texts, strict=True))

    def first(system: Measured, query_id: str) -> str:
        return next((texts.get(document, "") for document in ranking(system.run.get(query_id, {}))), "")

    def row(number: int) -> dict[str, Any]:
        query_id = student.quality.query_ids[number]
        relevant = max(qrels[query_id], key=lambda document: qrels[query_id][document])
        return {
            "query": queries[query_id],
            "reference": float(theirs[number]),
            "student": float(ours[number]),
            "relevant": texts.get(relevant, ""),
            "reference_first": first(reference, query_id),
            "student_first": first(student, query_id),
        }

    order = np.argsort(ours - theirs, kind="stable")
    return {
        "wins": [row(int(number)) for number in order[::-1][:count] if ours[number] > theirs[number]],
        "losses": [row(int(number)) for number in order[:count] if ours[number] < theirs[number]],
    }
