"""What each mode asks for, and what it writes: questions for documents, answers to questions, replies to dialogues."""

import os
import shutil
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from haystack_distill.data.beir import read_corpus, write_lines, write_qrels
from haystack_distill.data.dialogues import Context, read_contexts
from haystack_distill.data.questions import Question, read_questions
from haystack_distill.data.training_set import MANIFEST, Row, TrainingSet, write_training_set
from haystack_distill.generation.cleaning import neutral
from haystack_distill.generation.filters import Candidate
from haystack_distill.generation.job import Job, Write
from haystack_distill.generation.writing import CLOSED_BOOK, Order

PASSAGES = 3
"""Passages of a training set that an answer may be taken from: more make a prompt long, and a small reader lost."""


def questions(documents: dict[str, str], order: Order) -> tuple[Job, Write]:
    """Ask for questions about documents (id -> text), for a BEIR folder; a ValueError if no document has a text."""
    sources = {key: (text,) for key, text in documents.items() if text.strip()}
    if not sources:
        msg = "There is no document with a text to write questions for."
        raise ValueError(msg)
    requests = [order.request(key, turns) for key, turns in sources.items()]
    counted = {"empty_sources": len(documents) - len(sources), "neutralised": _neutralised(sources.values())}
    job = Job("questions", requests, sources, order.prompt_hash, order.seed, counted=counted)
    return job, lambda folder, kept: write_questions(folder, documents, kept, job.prompt_hash)


def read_documents(source: str | Path) -> dict[str, str]:
    """Documents to write questions for: of a BEIR folder, a `.jsonl` file like its corpus, or a training set."""
    path = Path(source)
    if (path / MANIFEST).is_file():
        return {
            key: text
            for row in TrainingSet.open(path)
            for key, text in zip(row.document_ids, row.documents, strict=True)
        }
    return read_corpus(path / "corpus.jsonl" if path.is_dir() else path).documents


def write_questions(folder: Path, documents: dict[str, str], kept: Iterable[Candidate], prompt_hash: str) -> None:
    """Write questions as a BEIR folder whose judgments say which document each was written for."""
    write_lines(folder / "corpus.jsonl", ({"_id": key, "text": text} for key, text in documents.items()))
    numbers: dict[str, int] = defaultdict(int)
    queries: list[dict[str, Any]] = []
    judged: list[tuple[str, str, int]] = []
    for candidate in kept:
        numbers[candidate.source_id] += 1
        metadata = {
            "answers": [],
            "source_document": candidate.source_id,
            "generated_by": marked(candidate, prompt_hash),
        }
        query_id = f"{candidate.source_id}-q{numbers[candidate.source_id]}"
        queries.append({"_id": query_id, "text": candidate.text, "metadata": metadata})
        judged.append((query_id, candidate.source_id, 1))
    write_lines(folder / "queries.jsonl", queries)
    write_qrels(folder / "qrels" / "train.tsv", judged)


def answers(source: str | Path, order: Order, split: str) -> tuple[Job, Write]:
    """
    Ask for answers to questions that have none, to be written in the form that the questions came in.

    :param source: A training set (answers are taken from its first passages), a BEIR folder (from the documents that
        its judgments name), or a file of questions (from what the generator knows).
    :raises ValueError: If every question has an answer.
    """
    rows, asked = _unanswered(Path(source), split)
    if not asked:
        msg = f"All {len(rows)} questions of {source} have answers: there is nothing to write."
        raise ValueError(msg)
    closed = replace(order, prompt=CLOSED_BOOK, examples=())
    used = {key: order if passages else closed for key, (_, passages) in asked.items()}
    requests = [
        used[key].request(key, ["\n\n".join(passages) or question], question)
        for key, (question, passages) in asked.items()
    ]
    sources = {key: (question,) for key, (question, _) in asked.items()}
    texts = [(question, *passages) for question, passages in asked.values()]
    counted = {"had_answers": len(rows) - len(asked), "neutralised": _neutralised(texts)}
    prompt_hash = "+".join(sorted({chosen.prompt_hash for chosen in used.values()}))
    job = Job("answers", requests, sources, prompt_hash, order.seed, counted=counted)
    return job, lambda folder, kept: write_answers(folder, source, split, rows, kept, prompt_hash)


def _unanswered(path: Path, split: str) -> tuple[list[Any], dict[str, tuple[str, list[str]]]]:
    """All rows of a source, and id -> question and passages of those without an answer."""
    if (path / MANIFEST).is_file():
        rows = list(TrainingSet.open(path))
        return rows, {row.query_id: (row.query, row.documents[:PASSAGES]) for row in rows if not row.answers}
    questions = read_questions(path, split)
    corpus = read_corpus(path / "corpus.jsonl").documents if (path / "corpus.jsonl").is_file() else {}
    return questions, {
        question.id: (question.text, [corpus[key] for key in question.judged if key in corpus][:PASSAGES])
        for question in questions
        if not question.answers
    }


def write_answers(
    folder: Path, source: str | Path, split: str, rows: list[Any], kept: Iterable[Candidate], prompt_hash: str
) -> None:
    """Write the same questions with their answers: a training set, or `queries.jsonl` with what else a folder holds."""
    written: dict[str, list[Candidate]] = defaultdict(list)
    for candidate in kept:
        written[candidate.source_id].append(candidate)
    marks = {key: [marked(candidate, prompt_hash) for candidate in answers] for key, answers in written.items()}
    if isinstance(rows[0], Row):
        _write_set(folder, TrainingSet.open(source), rows, written)
        lines = ({"query_id": key, "generated_by": mark} for key, mark in marks.items())
        write_lines(folder / "generated_answers.jsonl", lines)
        return
    write_lines(
        folder / "queries.jsonl",
        (_answered(question, written[question.id], marks.get(question.id)) for question in rows),
    )
    path = Path(source)
    if (path / "corpus.jsonl").is_file():
        shutil.copyfile(path / "corpus.jsonl", folder / "corpus.jsonl")
    if (path / "qrels").is_dir():
        judged = [(question.id, key, grade) for question in rows for key, grade in question.judged.items()]
        write_qrels(folder / "qrels" / f"{split}.tsv", judged)


def responses(source: str | Path, order: Order, history: int) -> tuple[Job, Write]:
    """Ask for replies to every context of dialogues."""
    contexts = read_contexts(source, history)
    sources = {context.id: tuple(context.turns) for context in contexts}
    counted = {
        "contexts_with_dropped_turns": sum(context.dropped > 0 for context in contexts),
        "dropped_turns": sum(context.dropped for context in contexts),
        "neutralised": _neutralised(sources.values()),
    }
    requests = [order.request(key, turns) for key, turns in sources.items()]
    known = {context.id: (context.response,) for context in contexts}
    job = Job("responses", requests, sources, order.prompt_hash, order.seed, known, counted)
    return job, lambda folder, kept: write_responses(folder, contexts, kept, job.prompt_hash)


def write_responses(folder: Path, contexts: Iterable[Context], kept: Iterable[Candidate], prompt_hash: str) -> None:
    """Write `responses.jsonl`: every context with the human's reply first, and then those that were generated."""
    written: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for candidate in kept:
        mark = marked(candidate, prompt_hash)
        written[candidate.source_id].append(
            {"text": candidate.text, "generated": True, **mark, "loglik": candidate.loglik}
        )
    lines = (
        {
            "_id": context.id,
            "context": context.turns,
            "responses": [{"text": context.response, "generated": False}, *written[context.id]],
        }
        for context in contexts
    )
    write_lines(folder / "responses.jsonl", lines)


def marked(candidate: Candidate, prompt_hash: str) -> dict[str, Any]:
    """What goes with a generated text wherever it goes."""
    return {"model": candidate.model, "prompt_hash": prompt_hash, "seed": candidate.seed}


def _answered(question: Question, answers: list[Candidate], marks: list[dict[str, Any]] | None) -> dict[str, Any]:
    texts = question.answers or [candidate.text for candidate in answers]
    metadata = {"answers": texts, **({"generated_by": marks} if marks else {})}
    return {"_id": question.id, "text": question.text, "metadata": metadata}


def _write_set(folder: Path, before: TrainingSet, rows: list[Row], written: dict[str, list[Candidate]]) -> None:
    answered = (
        row if row.answers else replace(row, answers=[candidate.text for candidate in written.get(row.query_id, [])])
        for row in rows
    )
    kept = {name: before.manifest[name] for name in ("source", "retriever", "similarity", "teacher")}
    made = write_training_set(folder / "set", answered, **kept).folder
    for file in made.iterdir():
        os.replace(file, folder / file.name)
    made.rmdir()


def _neutralised(sources: Iterable[Sequence[str]]) -> int:
    return sum(any(neutral(text) != text for text in texts) for texts in sources)
