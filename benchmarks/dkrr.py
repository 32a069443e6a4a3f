"""
A reader teaches the retriever, without passage labels, beside the same retriever taught with them.

    python -m benchmarks.dkrr --data BEIR_FOLDER [--questions 1000] [--teacher question] [--json FILE] [--quick]

`gold` is trained on the right passages of the same questions, and once on those of all train questions: the ceiling of
this budget and that of the corpus. `share_of_gap` and `share_of_whole_gap` are what of the way from `untouched` to the
one and the other (of the same student and update) a system goes, and `gap` and `whole_gap` how long these ways are in
points of nDCG@10; of a way that is not significant no share is told. `p` is a paired test against `untouched`.
Checkpoints are selected on held out questions that the teacher judges; the train split's judgments serve `gold` alone;
the test split is only measured on, and no question that it asks is trained on. Labels are kept by what they depend on,
so that a second run does not score again; a table that was stopped goes on when it is started again with the same
`--json`. Answers come from `queries.jsonl` (`metadata.answers`).
"""

import hashlib
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
from sentence_transformers import SentenceTransformer

from benchmarks.common import (
    CACHE,
    load_teacher,
    minilm,
    open_corpus,
    print_rows,
    queries_to_align,
    read_rows,
    write_rows,
)
from benchmarks.labels import NamedReader, labelled, read_answers
from benchmarks.retrieval_systems import by_words
from demo.packaged import smollm2
from haystack_distill.align.job import align
from haystack_distill.align.settings import KaleSettings
from haystack_distill.data.index import IndexView
from haystack_distill.data.training_set import RECIPROCAL_RANK, Row, TrainingSet, write_training_set
from haystack_distill.distill.job import DistillationSettings, distill
from haystack_distill.distill.proof import open_student
from haystack_distill.distill.training import RetrieverTraining
from haystack_distill.evaluation.held_out import Queries
from haystack_distill.evaluation.quality import Quality, Run, compare, measure, ranking, search

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
    ("p", "p", ".3f"),
    ("of gap", "share_of_gap", ".0%"),
    ("gap", "gap", ".4f"),
    ("of whole gap", "share_of_whole_gap", ".0%"),
    ("whole gap", "whole_gap", ".4f"),
    ("s", "seconds", ".0f"),
    ("s labels", "label_seconds", ".0f"),
)
LEARNING_RATES = {"6 layers": 2e-5, "2 layers": 2e-5, "table": 1e-3}
ALIGNED = {"2 layers": 2, "table": 0}
"""Students that were cut and aligned before they learn from the reader -> their layers."""
KEY = ("data", "system", "student", "update", "round", "teacher", "questions")
SURE = 0.05
"""The largest p of a gap that shares are told of."""


class Bench:
    """
    A corpus, its encoder and what was measured on it.

    :param data: A BEIR folder.
    :param json: Where rows are kept.
    :param top_k: Candidates of each question.
    :param epochs: Of every training.
    :param reader: What labels.
    """

    def __init__(self, data: Path, json: Path | None, top_k: int, epochs: int, reader: NamedReader) -> None:
        self.data, self.json, self.top_k, self.epochs, self.reader = data, json, top_k, epochs, reader
        self.encoder = load_teacher(minilm())
        self.corpus, self.index = open_corpus(data, self.encoder)
        self.answers = read_answers(data / "queries.jsonl")
        self.rows = read_rows(json)
        self._untouched: dict[str, Quality] = {}

    def done(self, **row: Any) -> bool:
        """Whether a row is there."""
        wanted = {"data": self.data.name, **row}
        return any(all(one[name] == wanted[name] for name in KEY) for one in self.rows)

    def untouched(self, kind: str) -> Quality:
        """What a kind of student is compared with."""
        if kind not in self._untouched:
            student = aligned(self, ALIGNED[kind]) if kind in ALIGNED else self.encoder.model
            found = self.searched(student, list(self.corpus.qrels["test"]), self.index)
            self._untouched[kind] = measure(found, self.corpus.qrels["test"])
        return self._untouched[kind]

    def add(self, quality: Quality, **row: Any) -> None:
        """Keep the row of what was measured on the test split."""
        summary = quality.summary()["ndcg@10"]
        kind = "6 layers" if row["student"] == "words" else row["student"]
        p = None if row["system"] == "untouched" else compare(quality, self.untouched(kind))["p"]
        figures = {"ndcg@10": summary["value"], "ci_low": summary["low"], "ci_high": summary["high"], "p": p}
        self.rows.append({"data": self.data.name, **row, **figures})
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
        asked = self.corpus.texts_of("test")
        return distill(student, training_set, self.index, settings, work, test=asked).training.seconds


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
    bench = Bench(data, json, 4 if quick else top_k, epochs, NamedReader(name, dtype))
    cut = {} if quick else {kind: aligned(bench, layers) for kind, layers in ALIGNED.items()}
    baselines(bench, ["6 layers", *cut])
    ids = sorted(bench.corpus.qrels["train"])
    np.random.default_rng(0).shuffle(ids)
    ids = ids[: 2 * count] if quick else ids
    every = bench.training_rows(bench.searched(bench.encoder.model, ids, bench.index, bench.top_k))
    first = every[:count]
    for material in (first, every):
        gold = bench.gold(material)
        trained(bench, gold, "6 layers", "query", 1, "gold", None, 0.0)
        for kind, start in cut.items():
            trained(bench, gold, kind, "query", 1, "gold", start, 0.0)
    signals = teacher or ["question"]
    for signal in signals:
        query_side(bench, signal, first, cut, rounds, bm25=bm25, growth=not quick)
    if both and not quick:  # at the end, since it takes longest
        trained(bench, bench.gold(first), "6 layers", "both", 1, "gold", None, 0.0)
        for signal in signals:
            labels, seconds = labelled(first, signal, bench.reader, source=str(data))
            trained(bench, labels, "6 layers", "both", 1, signal, None, seconds)
    print_rows(bench.rows, COLUMNS, f"Reader {Path(name).name}, student all-MiniLM-L6-v2, test split of {data.name}")


def query_side(
    bench: Bench,
    signal: str,
    first: list[Row],
    cut: dict[str, SentenceTransformer],
    rounds: int,
    *,
    bm25: bool,
    growth: bool,
) -> None:
    """All rows of a teacher in which documents stay: few and all questions, cut students, BM25 first, more rounds."""
    source = str(bench.data)
    labels, seconds = labelled(first, signal, bench.reader, source=source)
    for size in [len(first) // 4, len(first) // 2] if growth else []:
        part = write_part(labels, size)
        trained(bench, part, "6 layers", "query", 1, signal, None, seconds * size / len(first))
    student = trained(bench, labels, "6 layers", "query", 1, signal, None, seconds)
    for kind, start in cut.items():
        trained(bench, labels, kind, "query", 1, signal, start, seconds)
    ids = [row.query_id for row in first]
    if bm25:
        words = bench.training_rows(found_by_words(bench, ids, bench.top_k))
        others, more = labelled(words, signal, bench.reader, source=source, similarity=RECIPROCAL_RANK)
        trained(bench, others, "6 layers", "query", 1, f"{signal} of what BM25 finds", None, more)
    for number in range(2, rounds + 1):
        again = bench.training_rows(bench.searched(student, ids, bench.index, bench.top_k))
        labels, more = labelled(again, signal, bench.reader, source=source)
        seconds += more
        student = trained(bench, labels, "6 layers", "query", number, signal, student, seconds)


def baselines(bench: Bench, kinds: list[str]) -> None:
    """The retriever as it is, and one that counts words."""
    common = {"update": "none", "round": 0, "teacher": "none", "questions": 0}
    for kind in kinds:
        if not bench.done(system="untouched", student=kind, **common):
            bench.add(bench.untouched(kind), system="untouched", student=kind, **common, seconds=0.0)
    if not bench.done(system="bm25", student="words", **common):
        qrels = bench.corpus.qrels["test"]
        found = measure(found_by_words(bench, list(qrels), 10), qrels)
        bench.add(found, system="bm25", student="words", **common, seconds=0.0)


def found_by_words(bench: Bench, query_ids: list[str], depth: int) -> Run:
    """What BM25 finds."""
    texts = [bench.corpus.queries[one] for one in query_ids]
    return dict(zip(query_ids, by_words(bench.corpus).rank(texts, depth), strict=True))


def aligned(bench: Bench, layers: int) -> SentenceTransformer:
    """A student aligned with the index and the train questions that neither dev nor test asks; kept on disk."""
    texts = queries_to_align(bench.data, bench.corpus).train
    content = repr((bench.index.fingerprint, texts, layers))
    folder = CACHE / f"aligned-{hashlib.sha256(content.encode()).hexdigest()[:24]}"
    if not folder.exists():
        work = CACHE / "aligned-run"
        shutil.rmtree(work, ignore_errors=True)
        given, asked = Queries(texts), bench.corpus.texts_of("test")
        found = align(bench.index, bench.encoder, KaleSettings(layers=layers), work, given, test=asked)
        found.student.save(str(folder), create_model_card=False)
    return SentenceTransformer(str(folder), device="cpu")


def write_part(training_set: TrainingSet, count: int) -> TrainingSet:
    """The first questions of a labelled set."""
    shutil.rmtree(folder := CACHE / "part", ignore_errors=True)
    teacher = training_set.manifest["teacher"]
    return write_training_set(folder, list(training_set)[:count], similarity="cosine", teacher=teacher)


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
    quality = measure(found, bench.corpus.qrels["test"])
    bench.add(quality, **row, seconds=seconds, label_seconds=label_seconds)
    return student


def add_shares(rows: list[dict[str, Any]]) -> None:
    """What of the way from untouched to gold each row goes, with as many questions and with all of them."""
    for row in rows:
        same = [one for one in rows if (one["data"], one["student"]) == (row["data"], row["student"])]
        start = next((one["ndcg@10"] for one in same if one["system"] == "untouched"), None)
        ends = [one for one in same if one["system"] == "gold" and one["update"] == row["update"]]
        ends.sort(key=lambda one: one["questions"])
        if start is None or not ends:
            continue
        for name, end in (("gap", ends[0]), ("whole_gap", ends[-1])):
            row[name] = end["ndcg@10"] - start
            row[f"{name}_of"] = f"gold, {end['questions']} questions"
            sure = row[name] > 0 and end["p"] < SURE and row["system"] not in {"untouched", "bm25"}
            row[f"share_of_{name}"] = (row["ndcg@10"] - start) / row[name] if sure else None


if __name__ == "__main__":
    typer.run(main)
