# SPDX-FileCopyrightText: 2026-present haystack-distill contributors
#
# SPDX-License-Identifier: Apache-2.0

"""Folders in BEIR's form: `corpus.jsonl`, `queries.jsonl` and `qrels/{train,dev,test}.tsv`."""

import csv
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from haystack_distill.files.json_lines import read_json_lines

Qrels = dict[str, dict[str, int]]
"""Relevance judgments: query id -> document id -> grade (above 0)."""


@dataclass(frozen=True)
class BeirFolder:
    """
    A corpus, its queries and its judgments.

    :param documents: Document id -> title and text, joined by a space.
    :param queries: Query id -> text, of all splits.
    :param qrels: Split name -> judgments.
    """

    documents: dict[str, str]
    queries: dict[str, str]
    qrels: dict[str, Qrels] = field(default_factory=dict)

    def texts_of(self, split: str) -> list[str]:
        """
        The texts of the queries of a split, in the order of its judgments.

        :param split: `train`, `dev` or `test`.
        """
        return [self.queries[query_id] for query_id in self.qrels.get(split, {})]


def read_beir(folder: str | Path) -> BeirFolder:
    """
    Read a whole BEIR folder.

    :param folder: The folder.
    :returns: What it holds; splits without a file are left out.
    :raises FileNotFoundError: If the folder, its corpus or its queries are missing.
    :raises ValueError: If a line is not JSON, lacks a key or repeats an id, or a judgment names an unknown query or
        document.
    """
    path = Path(folder)
    documents = read_corpus(path / "corpus.jsonl")
    queries = {row["_id"]: row["text"] for row in _texts(path / "queries.jsonl")}
    qrels = {
        file.stem: read_qrels(file, queries.keys(), documents.keys()) for file in sorted((path / "qrels").glob("*.tsv"))
    }
    return BeirFolder(documents, queries, qrels)


def read_corpus(file: str | Path) -> dict[str, str]:
    """
    Read documents.

    :param file: A `corpus.jsonl`, or a `.jsonl` file like it.
    :returns: Document id -> title and text, joined by a space.
    :raises FileNotFoundError: If it is missing.
    :raises ValueError: If a line is not JSON, lacks a key or repeats an id.
    """
    return {row["_id"]: f"{row.get('title') or ''} {row['text']}".strip() for row in _texts(file)}


def check_judged(qrels: Qrels, document_ids: Iterable[str], what: str) -> None:
    """
    Make sure that judgments are about an index.

    :param qrels: The judgments.
    :param document_ids: The ids of the index.
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
    The documents that BEIR folders judge, read when they are asked for.

    :param paths: The folders; anything else has no judgments.
    :returns: Document ids.
    """
    for path in paths:
        if path is not None and Path(path).is_dir():
            yield from (key for qrels in read_beir(path).qrels.values() for judged in qrels.values() for key in judged)


def read_queries(file: str | Path) -> dict[str, str]:
    """
    Read queries from JSON lines with the keys `_id` and `text`.

    :param file: The file.
    :returns: Query id -> text.
    :raises FileNotFoundError: If there is no such file.
    :raises ValueError: If a line is not JSON, lacks a key or repeats an id, or a query is empty.
    """
    queries = {row["_id"]: row["text"] for row in _texts(file)}
    empty = [query_id for query_id, text in queries.items() if not text.strip()]
    if empty:
        msg = f"{file}: the query {empty[0]!r} is empty ({len(empty)} such); remove these lines."
        raise ValueError(msg)
    return queries


def read_qrels(file: Path, query_ids: Any, document_ids: Any) -> Qrels:
    """
    Read judgments from a TSV file with a header line; grades of 0 are left out.

    :param file: The file.
    :param query_ids: The known query ids.
    :param document_ids: The known document ids.
    :returns: The judgments.
    :raises ValueError: If a line has not three columns or names something unknown.
    """
    qrels: Qrels = {}
    with file.open(encoding="utf-8", newline="") as lines:
        for number, row in enumerate(csv.reader(lines, delimiter="\t"), start=1):
            if number == 1:
                continue
            if len(row) != 3 or not row[2].strip().lstrip("-").isdigit():
                msg = f"{file}, line {number}: expected query-id, corpus-id and a whole-number score, got {row}."
                raise ValueError(msg)
            query_id, document_id, grade = row
            if query_id not in query_ids or document_id not in document_ids:
                culprit = f"query {query_id!r}" if query_id not in query_ids else f"document {document_id!r}"
                msg = f"{file}, line {number}: the {culprit} is judged but is not in the folder's JSON lines."
                raise ValueError(msg)
            if int(grade) > 0:
                qrels.setdefault(query_id, {})[document_id] = int(grade)
    return qrels


def _texts(file: str | Path) -> Iterator[dict[str, Any]]:
    form = "a JSON object with the keys _id and text"
    seen = set()
    for number, row in read_json_lines(file, "a BEIR folder holds corpus.jsonl, queries.jsonl and qrels/*.tsv", form):
        if "_id" not in row or not isinstance(row.get("text"), str):
            msg = f"{file}, line {number}: expected {form}, the latter a text."
            raise ValueError(msg)
        row["_id"] = str(row["_id"])
        if row["_id"] in seen:
            msg = f"{file}, line {number}: the _id {row['_id']!r} is there twice; every line needs one of its own."
            raise ValueError(msg)
        seen.add(row["_id"])
        yield row
