# SPDX-FileCopyrightText: 2026-present haystack-distill contributors
#
# SPDX-License-Identifier: Apache-2.0

"""
A reader teaches the retriever, without passage labels, beside the same retriever taught with them.

    python -m benchmarks.dkrr --data BEIR_FOLDER [--questions 1000] [--teacher question] [--json FILE] [--quick]

`gold` is trained on the right passages of the same questions, with the same budget: the ceiling. `share_of_gap` is what
of the way from `untouched` to `gold` (of the same student and update) a system goes. Checkpoints are selected on held
out questions that the teacher judges; the train split's judgments serve `gold` alone, and the test split is only
measured on. Labels are kept by their content, so that a second run does not score again; a table that was stopped goes
on when it is started again with the same `--json`. Answers come from `queries.jsonl` (`metadata.answers`).
"""

import hashlib
import shutil
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
from haystack import Document
from haystack.components.retrievers.in_memory import InMemoryBM25Retriever
from haystack.document_stores.in_memory import InMemoryDocumentStore
from sentence_transformers import SentenceTransformer

from benchmarks.common import CACHE, CachedTeacher, load_teacher, minilm, open_corpus, print_rows, read_rows, write_rows
from benchmarks.labels import HEAD_QUESTIONS, read_answers, smollm2, teacher_for
from haystack_distill.align.job import KaleSettings, Queries, align
from haystack_distill.data.beir import BeirFolder
from haystack_distill.data.index import IndexView
from haystack_distill.data.training_set import RECIPROCAL_RANK, Row, TrainingSet, write_training_set
from haystack_distill.distill.job import DistillationSettings, distill
from haystack_distill.distill.proof import open_student
from haystack_distill.distill.training import RetrieverTraining
from haystack_distill.evaluation.quality import Run, measure, ranking, search
from haystack_distill.teachers.labelling import label, one_after_the_other
from haystack_distill.teachers.readers import load_reader
from haystack_distill.teachers.scores import ROWS_AT_ONCE, Candidates

COLUMNS = (
    ("data", "data", ""),
    ("system", "system", ""),
    ("student", "student", ""),
    ("update", "update", ""),
    ("round", "round", "d"),
    ("teacher", "teacher", ""),
    ("questions", "questions", "d"),
    ("nDCG@10", "ndcg@10", ".4f"),
    ("low", "ci_low", ".4f"),
    ("high", "ci_high", ".4f"),
    ("share of gap", "share_of_gap", ".2f"),
    ("s", "seconds", ".0f"),
    ("s labels", "label_seconds", ".0f"),
)
LEARNING_RATES = {"6 layers": 2e-5, "table": 1e-3}
KEY = ("data", "system", "student", "update", "round", "teacher", "questions")


class Bench:
    """
    A corpus, its encoder and what was measured on it.

    :param data: A BEIR folder.
    :param json: Where rows are kept.
    :param top_k: Candidates of each question.
    :param epochs: Of every training.
    :param make_reader: Loads the reader when the first label is needed.
    :param reader_name: Of the reader, for the labels' identity.
    """

    def __init__(
        self,
        data: Path,
        json: Path | None,
        top_k: int,
        epochs: int,
        make_reader: Callable[[], Any],
        reader_name: str,
    ) -> None:
        self.data, self.json, self.top_k, self.epochs = data, json, top_k, epochs
        self.make_reader, self.reader_name = make_reader, reader_name
        self.encoder: CachedTeacher = load_teacher(minilm())
        self.corpus: BeirFolder
        self.corpus, self.index = open_corpus(data, self.encoder)
        self.answers = read_answers(data / "queries.jsonl")
        self.rows = read_rows(json)
        self._reader: Any = None

    def done(self, **row: Any) -> bool:
        """Whether a row is there."""
        wanted = {"data": self.data.name, **row}
        return any(all(one[name] == wanted[name] for name in KEY) for one in self.rows)

    def add(self, found: Run, **row: Any) -> None:
        """Measure a run on the test split and keep its row."""
        summary = measure(found, self.corpus.qrels["test"]).summary()["ndcg@10"]
        self.rows.append(
            {"data": self.data.name, **row}
            | {"ndcg@10": summary["value"], "ci_low": summary["low"], "ci_high": summary["high"]}
        )
        add_shares(self.rows)
        write_rows(self.json, self.rows)
        print_rows(self.rows[-1:], COLUMNS, "")

    def searched(self, student: SentenceTransformer, query_ids: list[str], index: IndexView, depth: int = 100) -> Run:
        """What a student finds."""
        texts = [self.corpus.queries[one] for one in query_ids]
        vectors = np.asarray(student.encode_query(texts, batch_size=64, show_progress_bar=False), dtype=np.float32)
        return search(index, query_ids, vectors, depth)

    def training_rows(self, found: Run) -> list[Row]:
        """Candidates of questions as rows; judgments ride along for the diagnosis only."""
        judged = self.corpus.qrels["train"]
        return [
            Row(
                query_id=one,
                query=self.corpus.queries[one],
                answers=self.answers.get(one, []),
                document_ids=(documents := ranking(found[one])[: self.top_k]),
                documents=[self.corpus.documents[document] for document in documents],
                retriever_scores=[found[one][document] for document in documents],
                labels=[judged[one].get(document, 0) for document in documents],
            )
            for one in found
        ]

    def labelled(self, rows: list[Row], signal: str, similarity: str = "cosine") -> tuple[TrainingSet, float]:
        """Label rows, or find the labels of an earlier run; the seconds are those of the run that made them."""
        content = repr([(row.query, row.answers, row.documents) for row in rows]) + signal + self.reader_name
        folder = CACHE / f"labels-{hashlib.sha256(content.encode()).hexdigest()[:24]}"
        if not folder.exists():
            write_training_set(folder, rows, source=str(self.data), similarity=similarity)
        seconds = folder / "seconds.txt"
        if not seconds.exists():
            self._reader = self._reader or self.make_reader()
            some = [Candidates(row.query, row.documents, row.answers) for row in rows[-HEAD_QUESTIONS:]]
            scorer: Any = teacher_for(self._reader, signal, some, self.reader_name)
            at_once = getattr(scorer, "rows_at_once", ROWS_AT_ONCE)
            start = time.perf_counter()
            label(folder, scorer.identity, one_after_the_other(scorer), rows_at_once=at_once)
            seconds.write_text(str(time.perf_counter() - start), encoding="utf-8")
        return TrainingSet.open(folder), float(seconds.read_text(encoding="utf-8"))

    def gold(self, rows: list[Row]) -> TrainingSet:
        """The same questions with their right passage as the favourite."""
        place = dict(zip(self.index.ids, self.corpus.documents.values(), strict=True))
        made = []
        for row in rows:
            right = next(iter(self.corpus.qrels["train"][row.query_id]))
            documents = [right, *(one for one in row.document_ids if one != right)][: len(row.document_ids)]
            scores = [1.0] + [0.0] * (len(documents) - 1)
            made.append(
                replace(row, document_ids=documents, documents=[place[one] for one in documents], teacher_scores=scores)
            )
        folder = CACHE / "gold"
        shutil.rmtree(folder, ignore_errors=True)
        return write_training_set(folder, made, similarity="reciprocal_rank", teacher={"model": "gold passages"})

    def train(
        self, student: SentenceTransformer, kind: str, training_set: TrainingSet, update: str, *, gold: bool
    ) -> float:
        """Train a student in place."""
        work = CACHE / "dkrr-run"
        shutil.rmtree(work, ignore_errors=True)
        settings = DistillationSettings(
            update=update,
            passages=4 if update == "both" else None,
            teacher_temperature=0.05 if gold else "entropy",
            training=RetrieverTraining(self.epochs, 32, LEARNING_RATES[kind]),
        )
        return distill(student, training_set, self.index, settings, work).training.seconds


def main(
    data: Annotated[Path, typer.Option(help="A BEIR folder.")],
    json: Annotated[Path | None, typer.Option(help="Write the rows to this file.")] = None,
    teacher: Annotated[list[str] | None, typer.Option(help="Signals that label: likelihoods, or attention.")] = None,
    reader: Annotated[str | None, typer.Option(help="Folder, hub name or GGUF file; default: SmolLM2.")] = None,
    dtype: Annotated[str | None, typer.Option(help="Of the reader: float32 or bfloat16.")] = None,
    questions: Annotated[int, typer.Option(help="Train questions at most.")] = 1000,
    top_k: Annotated[int, typer.Option(help="Candidates of each question.")] = 16,
    rounds: Annotated[int, typer.Option(help="Rounds of retrieving, labelling and training.")] = 2,
    epochs: Annotated[int, typer.Option(help="Of every training.")] = 4,
    both: Annotated[bool, typer.Option(help="Whether to train both sides too.")] = True,
    bm25: Annotated[bool, typer.Option(help="Whether to train from candidates that BM25 finds, too.")] = False,
    quick: Annotated[bool, typer.Option(help="Few questions: shows that it runs, not how good it is.")] = False,
) -> None:
    """Print the table."""
    name = reader or smollm2()
    count, epochs, rounds = (48, 1, 1) if quick else (questions, epochs, rounds)
    bench = Bench(data, json, 4 if quick else top_k, epochs, lambda: load_reader(name, dtype=dtype), Path(name).name)
    baselines(bench)
    ids = sorted(bench.corpus.qrels["train"])
    np.random.default_rng(0).shuffle(ids)
    ids = ids[:count]
    first = bench.training_rows(bench.searched(bench.encoder.model, ids, bench.index, bench.top_k))
    table = None if quick else aligned_table(bench)
    gold = bench.gold(first)
    trained(bench, gold, "6 layers", "query", 1, "gold", None, 0.0)
    if table is not None:
        trained(bench, gold, "table", "query", 1, "gold", table, 0.0)
    signals = teacher or ["question"]
    for signal in signals:
        query_side(bench, signal, first, table, rounds, bm25=bm25, growth=not quick)
    if both and not quick:  # at the end, since it takes longest
        trained(bench, gold, "6 layers", "both", 1, "gold", None, 0.0)
        for signal in signals:
            labels, seconds = bench.labelled(first, signal)
            trained(bench, labels, "6 layers", "both", 1, signal, None, seconds)
    print_rows(bench.rows, COLUMNS, f"Reader {Path(name).name}, student all-MiniLM-L6-v2, test split of {data.name}")


def query_side(
    bench: Bench,
    signal: str,
    first: list[Row],
    table: SentenceTransformer | None,
    rounds: int,
    *,
    bm25: bool,
    growth: bool,
) -> None:
    """All rows of a teacher in which documents stay: few and all questions, the table, BM25 first, more rounds."""
    labels, seconds = bench.labelled(first, signal)
    for size in [len(first) // 4, len(first) // 2] if growth else []:
        part = write_part(labels, size)
        trained(bench, part, "6 layers", "query", 1, signal, None, seconds * size / len(first))
    student = trained(bench, labels, "6 layers", "query", 1, signal, None, seconds)
    if table is not None:
        trained(bench, labels, "table", "query", 1, signal, table, seconds)
    ids = [row.query_id for row in first]
    if bm25:
        words = bench.training_rows(found_by_words(bench, ids, bench.top_k))
        others, more = bench.labelled(words, signal, RECIPROCAL_RANK)
        trained(bench, others, "6 layers", "query", 1, f"{signal} of what BM25 finds", None, more)
    for number in range(2, rounds + 1):
        again = bench.training_rows(bench.searched(student, ids, bench.index, bench.top_k))
        labels, more = bench.labelled(again, signal)
        seconds += more
        student = trained(bench, labels, "6 layers", "query", number, signal, student, seconds)


def baselines(bench: Bench) -> None:
    """The retriever as it is, and one that counts words."""
    ids = list(bench.corpus.qrels["test"])
    common = {"student": "6 layers", "update": "none", "round": 0, "teacher": "none", "questions": 0}
    if not bench.done(system="untouched", **common):
        bench.add(bench.searched(bench.encoder.model, ids, bench.index), system="untouched", **common, seconds=0.0)
    if not bench.done(system="bm25", **{**common, "student": "words"}):
        bench.add(found_by_words(bench, ids, 10), system="bm25", **{**common, "student": "words"}, seconds=0.0)


def found_by_words(bench: Bench, query_ids: list[str], depth: int) -> Run:
    """What BM25 finds."""
    store = InMemoryDocumentStore()
    store.write_documents([Document(id=key, content=text) for key, text in bench.corpus.documents.items() if text])
    retriever = InMemoryBM25Retriever(store, top_k=depth)
    found = {one: retriever.run(bench.corpus.queries[one])["documents"] for one in query_ids}
    return {one: {document.id: document.score for document in documents} for one, documents in found.items()}


def aligned_table(bench: Bench) -> SentenceTransformer:
    """A token table aligned with the index and the train questions, as benchmarks.kale makes it; kept on disk."""
    folder = CACHE / f"table-{bench.data.name}-{bench.index.fingerprint[:16]}"
    if not folder.exists():
        texts = [bench.corpus.queries[one] for one in bench.corpus.qrels["train"]]
        work = CACHE / "table-run"
        found = align(bench.index, bench.encoder, KaleSettings(layers=0), work, Queries(texts))
        shutil.rmtree(work)
        found.student.save(str(folder), create_model_card=False)
    table = SentenceTransformer(str(folder), device="cpu")
    row = {"system": "untouched", "student": "table", "update": "none", "round": 0, "teacher": "none", "questions": 0}
    if not bench.done(**row):
        found_by = bench.searched(table, list(bench.corpus.qrels["test"]), bench.index)
        bench.add(found_by, **row, seconds=0.0)
    return table


def write_part(training_set: TrainingSet, count: int) -> TrainingSet:
    """The first questions of a labelled set."""
    folder = CACHE / "part"
    shutil.rmtree(folder, ignore_errors=True)
    rows = list(training_set)[:count]
    return write_training_set(folder, rows, similarity="cosine", teacher=training_set.manifest["teacher"])


def trained(
    bench: Bench,
    training_set: TrainingSet,
    kind: str,
    update: str,
    number: int,
    teacher: str,
    start: SentenceTransformer | None,
    label_seconds: float,
) -> SentenceTransformer:
    """Train and measure one student; one that was measured before is read from its folder."""
    system = "gold" if teacher == "gold" else "distilled"
    row = {
        "system": system,
        "student": kind,
        "update": update,
        "round": number,
        "teacher": teacher,
        "questions": len(training_set),
    }
    folder = CACHE / "dkrr" / "-".join([bench.data.name, *map(str, row.values())]).replace(" ", "_")
    if bench.done(**row) and folder.exists():
        return SentenceTransformer(str(folder), device="cpu")
    # A copy, since the one that a round starts from is trained in place.
    student = open_student(bench.encoder, minilm())
    if start is not None:
        begin = CACHE / "dkrr-start"
        shutil.rmtree(begin, ignore_errors=True)
        start.save(str(begin), create_model_card=False)
        student = SentenceTransformer(str(begin), device="cpu")
    seconds = bench.train(student, kind, training_set, update, gold=teacher == "gold")
    shutil.rmtree(folder, ignore_errors=True)
    student.save(str(folder), create_model_card=False)
    index = bench.index
    if update == "both":
        vectors = student.encode_document(list(bench.corpus.documents.values()), batch_size=32, show_progress_bar=True)
        index = replace(index, vectors=np.asarray(vectors, dtype=np.float32))
    found = bench.searched(student, list(bench.corpus.qrels["test"]), index)
    bench.add(found, **row, seconds=seconds, label_seconds=label_seconds)
    return student


def add_shares(rows: list[dict[str, Any]]) -> None:
    """What of the way from untouched to gold each row goes."""
    for row in rows:
        same = [one for one in rows if one["data"] == row["data"] and one["student"] == row["student"]]
        start = next((one["ndcg@10"] for one in same if one["system"] == "untouched"), None)
        end = next((one["ndcg@10"] for one in same if one["system"] == "gold" and one["update"] == row["update"]), None)
        gap = None if start is None or end is None else end - start
        row["share_of_gap"] = (
            None if not gap or row["system"] in {"untouched", "bm25"} else (row["ndcg@10"] - start) / gap
        )


if __name__ == "__main__":
    typer.run(main)
