"""Folders in BEIR's form: `corpus.jsonl`, `queries.jsonl` and `qrels/{train,dev,test}.tsv`."""

import csv
import json
import re
from collections.abc import Container, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, NotRequired
from weakref import WeakValueDictionary

from pydantic import BeforeValidator
from typing_extensions import TypedDict

from haystack_distill.files.json_lines import read_json_lines
from haystack_distill.files.shapes import Id
from haystack_distill.files.texts import read_cells

Qrels = dict[str, dict[str, int]]
"""Relevance judgments: query id -> document id -> grade (above 0)."""


class Line(TypedDict):
    """A line of `corpus.jsonl` or `queries.jsonl`; it may have more."""

    _id: Id
    text: str
    title: NotRequired[Annotated[Id, BeforeValidator(lambda title: title or "")]]


GRADE = re.compile(r"\s*-?[0-9]{1,9}\s*")


@dataclass(frozen=True)
class BeirFolder:
    """
    A corpus, its queries and its judgments.

    :param documents: Document id -> title and text, joined by a space: what is embedded.
    :param queries: Query id -> text, of all splits.
    :param titles: Document id -> title, of the documents that have one.
    """

    documents: dict[str, str]
    queries: dict[str, str]
    qrels: dict[str, Qrels] = field(default_factory=dict)
    titles: dict[str, str] = field(default_factory=dict)

    def texts_of(self, split: str) -> list[str]:
        """The texts of the queries of a split, in the order of its judgments."""
        return [self.queries[query_id] for query_id in self.qrels.get(split, {})]


@dataclass(frozen=True)
class Corpus:
    """Documents and titles, as `BeirFolder` has them."""

    documents: dict[str, str]
    titles: dict[str, str]


_HELD: WeakValueDictionary[tuple[Path, int, int], Corpus] = WeakValueDictionary()
"""Corpora that are in use: the steps of a job read the same file, and as long as one holds it, it is read once."""


def read_beir(folder: str | Path) -> BeirFolder:
    """
    Read a whole BEIR folder; splits without a file are left out.

    :raises FileNotFoundError: If the folder, its corpus or its queries are missing.
    :raises ValueError: If a line is not JSON, lacks a key or repeats an id, or a judgment names an unknown query or
        document.
    """
    return _about(read_corpus(Path(folder) / "corpus.jsonl"), Path(folder))


def read_judged(folder: str | Path) -> BeirFolder:
    """
    Read queries and judgments, as `read_beir` does, about documents that the folder may leave to a document store.

    :returns: Without a `corpus.jsonl` there are no documents, and judgments may name any.
    """
    file = Path(folder) / "corpus.jsonl"
    return _about(read_corpus(file) if file.is_file() else None, Path(folder))


def _about(corpus: Corpus | None, folder: Path) -> BeirFolder:
    """The folder with its queries and judgments; without a corpus these may name any document."""
    queries = {row["_id"]: row["text"] for row in _texts(folder / "queries.jsonl")}
    known = corpus.documents if corpus else None
    qrels = {split: read_qrels(file, queries, known) for split, file in splits_in(folder).items()}
    return BeirFolder(known or {}, queries, qrels, corpus.titles if corpus else {})


def splits_in(folder: str | Path) -> dict[str, Path]:
    """The splits that a BEIR folder judges, by their names, and the files of their judgments."""
    return {file.stem: file for file in sorted((Path(folder) / "qrels").glob("*.tsv"))}


def split_file(folder: str | Path, split: str) -> Path | None:
    """The judgments of a split; None where there are none at all, a FileNotFoundError where there are only others."""
    splits = splits_in(folder)
    if splits and split not in splits:
        msg = f"{folder} has no qrels/{split}.tsv: name one of its splits, {', '.join(splits)}."
        raise FileNotFoundError(msg)
    return splits.get(split)


def read_corpus(file: str | Path) -> Corpus:
    """
    Read the documents of a `corpus.jsonl`, or of a `.jsonl` file like it.

    :raises FileNotFoundError: If it is missing.
    :raises ValueError: If a line is not JSON, lacks a key or repeats an id.
    """
    path = Path(file).resolve()
    key = (path, path.stat().st_mtime_ns, path.stat().st_size) if path.is_file() else (path, 0, 0)
    if (held := _HELD.get(key)) is not None:
        return held
    corpus = Corpus({}, {})
    for row in _texts(file):
        title = row.get("title", "")
        corpus.documents[row["_id"]] = f"{title} {row['text']}".strip()
        if title.strip():
            corpus.titles[row["_id"]] = title.strip()
    _HELD[key] = corpus
    return corpus


def check_judged(qrels: Qrels, document_ids: Iterable[str], what: str) -> None:
    """
    Make sure that judgments are about an index.

    :param what: Whose judgments they are, to begin the message with.
    :raises ValueError: If they name a document that the index lacks.
    """
    missing = {document for judged in qrels.values() for document in judged} - set(document_ids)
    if missing:
        msg = (
            f"{what} judges documents that the index lacks ({min(missing)!r} is one of {len(missing)}): judgments must "
            "use the ids of the document store."
        )
        raise ValueError(msg)


def judged_documents(*paths: str | Path | None) -> Iterator[str]:
    """
    The ids of the documents that BEIR folders judge, read when they are asked for; files of queries judge none.

    :raises FileNotFoundError: At once, if a path is missing.
    """
    given = [Path(path) for path in paths if path is not None]
    for path in given:
        if not path.exists():
            msg = f"{path} is missing: give a BEIR folder (queries.jsonl, qrels/*.tsv), or a JSONL file of queries."
            raise FileNotFoundError(msg)
    splits = (qrels for path in given if path.is_dir() for qrels in read_judged(path).qrels.values())
    return (key for qrels in splits for judged in qrels.values() for key in judged)


def read_queries(file: str | Path) -> dict[str, str]:
    """
    Read queries, id -> text, from JSON lines with the keys `_id` and `text`.

    :raises FileNotFoundError: If there is no such file.
    :raises ValueError: If a line is not JSON, lacks a key or repeats an id, or a query is empty.
    """
    queries = {row["_id"]: row["text"] for row in _texts(file)}
    empty = [query_id for query_id, text in queries.items() if not text.strip()]
    if empty:
        msg = f"{file}: the query {empty[0]!r} is empty ({len(empty)} such); remove these lines."
        raise ValueError(msg)
    return queries


def read_qrels(file: Path, query_ids: Container[str], document_ids: Container[str] | None) -> Qrels:
    """
    Read judgments from a TSV file; grades of 0 and below are left out.

    :param document_ids: What may be judged; None where that is not known yet.
    :raises ValueError: If a line after the header has not three columns, or names something unknown.
    """
    qrels: Qrels = {}
    for number, row in _columns(file):
        query_id, document_id, grade = row
        if query_id not in query_ids or (document_ids is not None and document_id not in document_ids):
            culprit = f"query {query_id!r}" if query_id not in query_ids else f"document {document_id!r}"
            msg = f"{file}, line {number}: the {culprit} is judged but is not in the folder's JSON lines."
            raise ValueError(msg)
        if int(grade) > 0:
            qrels.setdefault(query_id, {})[document_id] = int(grade)
    return qrels


def write_lines(file: Path, rows: Iterable[dict[str, Any]]) -> None:
    """Write a `corpus.jsonl` or `queries.jsonl`."""
    with file.open("w", encoding="utf-8") as lines:
        lines.writelines(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)


def write_qrels(file: Path, judged: Iterable[tuple[str, str, int]]) -> None:
    """Write judgments, query id, document id and grade, as TSV."""
    file.parent.mkdir(exist_ok=True)
    with file.open("w", encoding="utf-8", newline="") as lines:
        rows = csv.writer(lines, delimiter="\t", lineterminator="\n")
        rows.writerow(["query-id", "corpus-id", "score"])
        rows.writerows(judged)


def _columns(file: Path) -> Iterator[tuple[int, list[str]]]:
    """The judgments with their lines; a first line without a digit in its third column is the header."""
    for number, row in read_cells(file, "\t"):
        is_header = number == 1 and len(row) == 3 and not any(letter.isdigit() for letter in row[2])
        if len(row) == 3 and GRADE.fullmatch(row[2]):
            yield number, row
        elif row and not is_header:
            shown = [cell if len(cell) <= 40 else f"{cell[:40]}..." for cell in row]
            msg = f"{file}, line {number}: expected query-id, corpus-id and a whole-number score, got {shown}."
            raise ValueError(msg)


def _texts(file: str | Path) -> Iterator[Any]:
    form = "a JSON object with the keys _id and text, the latter a text"
    seen = set()
    role = "a BEIR folder holds corpus.jsonl, queries.jsonl and qrels/*.tsv"
    for number, row in read_json_lines(file, role, form, Line):
        if row["_id"] in seen:
            msg = f"{file}, line {number}: the _id {row['_id']!r} is there twice; every line needs one of its own."
            raise ValueError(msg)
        seen.add(row["_id"])
        yield row
