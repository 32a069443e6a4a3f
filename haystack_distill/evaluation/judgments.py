"""Judgments as people keep them, a question and a document in each row, made into a folder in BEIR's form."""

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, NamedTuple

from haystack_distill.data.beir import write_lines, write_qrels
from haystack_distill.data.questions import read_rows
from haystack_distill.evaluation.held_out import hold_out
from haystack_distill.files.folders import published, refuse_existing

QUESTIONS = ("question", "query", "text")
DOCUMENTS = ("document", "document_id", "doc_id", "corpus-id", "corpus_id", "id", "url")
GRADES = ("grade", "score", "relevance")
SPLITS = ("train", "dev", "test")
"""The names that columns may have, and what may stand in `split`."""


class Judgment(NamedTuple):
    """Of a row; the split is empty where none is named."""

    question: str
    document: str
    grade: int
    split: str


def read_judgments(source: str, column: str | None = None) -> list[Judgment]:
    """
    Read the rows that judge something relevant.

    :param source: See `read_rows`. Columns are found by their usual names: a question, a document, and perhaps `grade`
        (a whole number; 1 where there is none) and `split`.
    :param column: What else the column of documents may be called, as the meta field that they are found by.
    :raises FileNotFoundError: If there is no such file or data set.
    :raises ValueError: If a row lacks a question or a document, has another grade or split, or nothing is relevant.
    """
    names = (column, *DOCUMENTS) if column else DOCUMENTS
    found = [_judgment(row, f"{source}, row {number}", names) for number, row in read_rows(source)]
    relevant = [judgment for judgment in found if judgment.grade > 0]
    if not relevant:
        msg = f"{source} judges nothing relevant: it needs rows with a question and a document."
        raise ValueError(msg)
    return relevant


def _judgment(row: dict[str, Any], where: str, documents: Iterable[str]) -> Judgment:
    question, document = (_first(row, names, where) for names in (QUESTIONS, documents))
    grade, split = (_first(row, names, where, default) for names, default in ((GRADES, "1"), (("split",), "")))
    try:
        number = int(grade)
    except ValueError as error:
        msg = f"{where}: the grade {grade!r} is no whole number."
        raise ValueError(msg) from error
    if split and split not in SPLITS:
        msg = f"{where}: the split {split!r} is none of {', '.join(SPLITS)}."
        raise ValueError(msg)
    return Judgment(question, document, number, split)


def _first(row: dict[str, Any], names: Iterable[str], where: str, default: str | None = None) -> str:
    value = next((str(row[name]).strip() for name in names if row.get(name) is not None), default)
    if not value and default is None:
        msg = f"{where}: there is nothing in a column called {', '.join(names)}; it has {', '.join(row) or 'none'}."
        raise ValueError(msg)
    return value or ""


def write_judgments(
    folder: Path,
    judgments: list[Judgment],
    ids_of: Callable[[str], Iterable[str]],
    shares: dict[str, float],
    seed: int = 0,
) -> dict[str, int]:
    """
    Write `queries.jsonl` and `qrels/`, about documents that are elsewhere.

    :param ids_of: What a row calls a document -> the ids of the documents that are meant; none if it is not there.
    :param shares: Split -> which share of the questions that name none it gets, from 0 to 1; the rest is for training.
    :returns: How many questions each split has, and as `unknown` how many rows name a document that is not there.
    :raises FileExistsError: If the folder exists.
    :raises ValueError: If none of the documents is there.
    """
    refuse_existing(folder)
    known = [(one, found) for one in judgments if (found := list(ids_of(one.document)))]
    if not known:
        msg = f"None of the judged documents is there ({judgments[0].document!r} is one of {len(judgments)} rows)."
        raise ValueError(msg)
    ids = {question: f"q{number}" for number, question in enumerate(dict.fromkeys(one.question for one, _ in known))}
    placed = {one.question for one, _ in known if one.split}
    free = [question for question in ids if question not in placed]
    drawn: dict[str, str] = {}
    for split, share in shares.items():
        left = [question for question in free if question not in drawn]
        drawn |= dict.fromkeys(hold_out(left, min(len(left), round(share * len(free))), seed)[0], split)
    qrels: dict[str, dict[tuple[str, str], int]] = {}
    for one, documents in known:
        split = one.split or drawn.get(one.question, "train")
        for document in documents:
            grades, key = qrels.setdefault(split, {}), (ids[one.question], document)
            grades[key] = max(one.grade, grades.get(key, 0))
    with published(folder) as place:
        write_lines(place / "queries.jsonl", ({"_id": key, "text": text} for text, key in ids.items()))
        for split, grades in qrels.items():
            write_qrels(place / "qrels" / f"{split}.tsv", ((*key, grade) for key, grade in grades.items()))
    counts = {split: len({query for query, _ in grades}) for split, grades in qrels.items()}
    return {**counts, "unknown": len(judgments) - len(known)}
