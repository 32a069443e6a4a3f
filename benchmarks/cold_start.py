"""
From passages alone to a better retriever, and what each filter of generated questions is worth.

    python -m benchmarks.cold_start --data BEIR_FOLDER [--reader MODEL] [--json FILE] [--quick]

A generator writes questions for the documents of a corpus; filters send some away; the query side of the retriever is
trained on what is left, each question with the document it was written for as the teacher's favourite. No query and no
judgment of the data is looked at before the test split is measured. `gold` is the same training on the judged train
queries: the ceiling. Texts are generated once and serve all rows. A table that was stopped goes on when it is started
again with the same `--json`.
"""

import hashlib
import shutil
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
from sentence_transformers import SentenceTransformer

from benchmarks.common import CachedTeacher, load_teacher, minilm, open_corpus, print_rows, read_rows, write_rows
from demo.packaged import smollm2
from haystack_distill.data.index import IndexView
from haystack_distill.data.training_set import Row, write_training_set
from haystack_distill.distill.job import DistillationSettings, distill
from haystack_distill.distill.proof import open_student
from haystack_distill.distill.training import RetrieverTraining
from haystack_distill.evaluation.comparison import System, student_system, teacher_system
from haystack_distill.evaluation.quality import Quality, compare, measure, ranking, search
from haystack_distill.generation.filters import (
    Candidate,
    Filters,
    apply,
    counts,
    found_again,
    likeliest,
    text_filters,
)
from haystack_distill.generation.job import candidates_of, generated
from haystack_distill.generation.local import LocalGenerator, Sampling
from haystack_distill.generation.modes import questions
from haystack_distill.generation.writing import order_of
from haystack_distill.teachers.readers import load_reader

WORK = Path("benchmark_output/cold_start")
DEPTH = 8
LIKELIEST = 0.7
"""InPars keeps a tenth of 100,000 questions; of a few thousand that would leave too little to train on."""

COLUMNS = (
    ("data", "data", ""),
    ("system", "system", ""),
    ("filters", "filters", ""),
    ("questions", "questions", "d"),
    ("of", "generated", "d"),
    ("update", "update", ""),
    ("teacher", "teacher", ""),
    ("nDCG@10", "ndcg@10", ".4f"),
    ("low", "ci_low", ".4f"),
    ("high", "ci_high", ".4f"),
    ("p", "p", ".3f"),
    ("% of gap", "share_of_gap", ".1f"),
    ("s", "seconds", ".0f"),
)


def main(
    data: Annotated[Path, typer.Option(help="A BEIR folder.")],
    json: Annotated[Path | None, typer.Option(help="Write the rows to this file.")] = None,
    reader: Annotated[str | None, typer.Option(help="What writes: folder, hub name or GGUF file.")] = None,
    documents: Annotated[int, typer.Option(help="For how many documents, evenly drawn.")] = 2000,
    n: Annotated[int, typer.Option(help="Questions for each document.")] = 3,
    epochs: Annotated[int, typer.Option(help="Passes over the questions.")] = 4,
    quick: Annotated[bool, typer.Option(help="A dozen documents, one epoch: shows that it runs.")] = False,
) -> None:
    """Print the table."""
    encoder = load_teacher(minilm())
    corpus, index = open_corpus(data, encoder)
    test = _Test(corpus.queries, corpus.qrels["test"], index)
    before = test.quality(teacher_system(encoder))
    rows = read_rows(json) or [{"data": data.name, "system": "untouched", **figures(before, before)}]
    candidates, seconds = write_questions(corpus.documents, reader, 12 if quick else documents, n)
    chosen = filter_sets(lambda texts: _search(encoder, index, texts))
    done = {(row["system"], row.get("filters")) for row in rows}
    jobs: list[tuple[str, str, Callable[[], list[tuple[str, str]]]]] = [
        ("gold", "", lambda: gold_pairs(corpus.queries, corpus.qrels["train"], len(candidates) or 1))
    ]
    for name, filters in chosen.items():
        jobs.append(("cold_start", name, lambda filters=filters: pairs(filters, candidates)))
    for system, name, make in jobs:
        if (system, name) in done:
            continue
        start = time.perf_counter()
        material = make()
        row = {"data": data.name, "system": system, "filters": name, "update": "query", "round": 1, "teacher": "source"}
        row |= {"questions": len(material), "generated": len(candidates) if system == "cold_start" else None}
        row["counts"] = counts(apply(chosen[name], candidates)[1], chosen[name]) if name else {}
        student = train(material, encoder, index, f"{data.name}-{system}-{name}", 1 if quick else epochs, test.texts)
        after = test.quality(student_system("student", student))
        row |= figures(after, before) | {"seconds": time.perf_counter() - start, "writing_seconds": seconds}
        rows.append(row)
        write_rows(json, with_shares(rows))
        print_rows(rows[-1:], COLUMNS, "")
    write_rows(json, with_shares(rows))
    print_rows(rows, COLUMNS, "Query encoders trained without any query log")


def write_questions(
    documents: dict[str, str], reader: str | None, count: int, n: int
) -> tuple[list[Candidate], float | None]:
    """Questions for some documents, not filtered, and how long it took; None where they were there already."""
    ids = list(documents)[:: max(1, len(documents) // count)][:count]
    name = reader or smollm2()
    job, _ = questions({one: documents[one] for one in ids}, order_of("questions", None, None, count=n, seed=0))
    key = hashlib.sha256(repr((name, n, job.prompt_hash, job.sources)).encode()).hexdigest()[:16]
    file = WORK / f"{key}.jsonl"
    file.parent.mkdir(parents=True, exist_ok=True)
    start, before = time.perf_counter(), file.exists()
    generator = LocalGenerator(load_reader(name), Path(name).name, Sampling(40, 0.7), batch_size=8 * n)
    replies = generated(job.requests, generator, file)
    return candidates_of(job, replies), None if before else time.perf_counter() - start


def filter_sets(search_for: Callable[[Sequence[str]], list[list[str]]]) -> dict[str, Filters]:
    """Filters to compare: none, each of the kinds, and all."""
    nothing = {name: one for name, one in text_filters("questions").items() if name == "empty"}
    text = text_filters("questions")
    return {
        "none": nothing,
        "text": text,
        "text + likelihood": {**text, "likelihood": likeliest(LIKELIEST)},
        "text + round trip": {**text, "round_trip": found_again(search_for)},
        "round trip": {**nothing, "round_trip": found_again(search_for)},
        "all": {**text, "likelihood": likeliest(LIKELIEST), "round_trip": found_again(search_for)},
    }


def pairs(filters: Filters, candidates: list[Candidate]) -> list[tuple[str, str]]:
    """Questions that stay, each with its document."""
    return [(one.text, one.source_id) for one in apply(filters, candidates)[0]]


def gold_pairs(queries: dict[str, str], qrels: dict[str, dict[str, int]], most: int) -> list[tuple[str, str]]:
    """Judged train queries, no more than there are generated ones: the ceiling has the same budget."""
    judged = [(queries[one], max(found, key=lambda key: found[key])) for one, found in qrels.items()]
    return judged[:: max(1, len(judged) // most)][:most]


def train(
    material: list[tuple[str, str]], encoder: CachedTeacher, index: IndexView, name: str, epochs: int, test: list[str]
) -> SentenceTransformer:
    """The query side, trained on questions, but for what test asks, with their documents against what is found."""
    folder = WORK / name.replace(" ", "_").replace("+", "and")
    shutil.rmtree(folder, ignore_errors=True)
    rows = training_rows(material, encoder, index)
    labelled = write_training_set(
        folder / "set", rows, retriever="MiniLM", similarity="cosine", teacher={"name": "source document"}
    )
    settings = DistillationSettings(
        loss={"contrastive": 1.0},
        teacher_temperature=1.0,
        training=RetrieverTraining(epochs, batch_size=min(32, max(2, len(rows) // 4))),
    )
    return distill(open_student(encoder, minilm()), labelled, index, settings, folder / "run", test=test).student


def training_rows(material: list[tuple[str, str]], encoder: CachedTeacher, index: IndexView) -> list[Row]:
    """Candidates of each question: what the retriever finds, with its document among them and first in score."""
    ids = [f"q{number}" for number in range(len(material))]
    vectors = encoder.encode_queries([text for text, _ in material])
    run = search(index, ids, vectors, depth=DEPTH)
    place = {key: number for number, key in enumerate(index.ids)}
    documents = np.asarray(index.ranking_vectors)
    rows = []
    for number, (text, source) in enumerate(material):
        found = ranking(run[ids[number]])
        found = found if source in found else [*found[:-1], source]
        rows.append(
            Row(
                query_id=ids[number],
                query=text,
                answers=[],
                document_ids=found,
                documents=[index.texts[place[key]] for key in found],
                retriever_scores=[float(vectors[number] @ documents[place[key]]) for key in found],
                teacher_scores=[float(key == source) for key in found],
            )
        )
    return rows


class _Test:
    """The test split of the data."""

    def __init__(self, queries: dict[str, str], qrels: dict[str, dict[str, int]], index: IndexView) -> None:
        self.qrels, self.index, self.texts = qrels, index, [queries[query_id] for query_id in qrels]

    def quality(self, system: System) -> Quality:
        return measure(search(self.index, list(self.qrels), system.encode(self.texts)), self.qrels)


def figures(after: Quality, before: Quality) -> dict[str, Any]:
    """What is measured of a system, and whether it differs from the untouched one."""
    one = after.summary()["ndcg@10"]
    p = compare(after, before)["p"]
    return {"ndcg@10": one["value"], "ci_low": one["low"], "ci_high": one["high"], "p": p}


def with_shares(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Add how much of the way from the untouched retriever to the ceiling each system goes."""
    by_name = {row["system"]: row["ndcg@10"] for row in rows}
    gap = by_name.get("gold", by_name["untouched"]) - by_name["untouched"]
    for row in rows:
        row["share_of_gap"] = 100 * (row["ndcg@10"] - by_name["untouched"]) / gap if gap > 0 else None
    return rows


def _search(encoder: CachedTeacher, index: IndexView, texts: Sequence[str]) -> list[list[str]]:
    ids = [str(number) for number in range(len(texts))]
    run = search(index, ids, encoder.encode_queries(list(texts)), depth=10)
    return [ranking(run[one]) for one in ids]


if __name__ == "__main__":
    typer.run(main)
