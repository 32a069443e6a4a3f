# SPDX-FileCopyrightText: 2026-present haystack-distill contributors
#
# SPDX-License-Identifier: Apache-2.0

"""Questions to train on, with answers where there are any: JSON lines, Parquet, a BEIR folder, or a `datasets` name."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from haystack_distill.data.beir import Qrels, read_qrels
from haystack_distill.files.json_lines import read_json_lines


@dataclass(frozen=True)
class Question:
    """
    A question.

    :param id: Its id.
    :param text: Its text.
    :param answers: Reference answers.
    :param judged: Document id -> grade, where there are judgments.
    """

    id: str
    text: str
    answers: list[str]
    judged: dict[str, int]


def read_questions(source: str | Path, split: str = "train") -> list[Question]:
    """
    Read questions.

    :param source: A BEIR folder, a `.jsonl` or `.parquet` file with `_id`, `text` and perhaps `metadata.answers` or
        `answers`, or the name of a data set for the `datasets` library with such columns.
    :param split: Of a BEIR folder with judgments: only their queries; or of the data set.
    :returns: The questions in their order.
    :raises FileNotFoundError: If there is no such file, folder or data set.
    :raises ValueError: If a row has no text, an id comes twice, or there is no question.
    """
    path = Path(source)
    judgments: Qrels | None = None
    if path.is_dir():
        rows = list(_objects(path / "queries.jsonl"))
        file = path / "qrels" / f"{split}.tsv"
        if file.is_file():
            documents = {str(row["_id"]) for row in _objects(path / "corpus.jsonl")}
            judgments = read_qrels(file, {str(row.get("_id")) for row in rows}, documents)
        elif any((path / "qrels").glob("*.tsv")):
            there = ", ".join(sorted(one.stem for one in (path / "qrels").glob("*.tsv")))
            msg = f"{path} has no qrels/{split}.tsv: name one of its splits, {there}."
            raise FileNotFoundError(msg)
    elif path.suffix == ".jsonl":
        rows = list(_objects(path))
    else:
        rows = _data_set(path, str(source), split)
    questions = [_question(row, number, source, judgments) for number, row in enumerate(rows, start=1)]
    if judgments is not None:
        questions = [question for question in questions if question.id in judgments]
    _check(questions, source)
    return questions


def _question(row: dict[str, Any], number: int, source: Any, judgments: Qrels | None) -> Question:
    text = row.get("text", row.get("query", row.get("question")))
    if not isinstance(text, str) or not text.strip():
        msg = f"{source}, row {number}: the question is empty; remove it, or name its column `text`."
        raise ValueError(msg)
    query_id = str(row.get("_id", row.get("query_id", row.get("id", number - 1))))
    answers = row.get("answers", (row.get("metadata") or {}).get("answers"))
    if isinstance(answers, dict):  # SQuAD's form
        answers = answers.get("text")
    answers = [answers] if isinstance(answers, str) else list(answers) if answers is not None else []
    return Question(query_id, text, [str(answer) for answer in answers], (judgments or {}).get(query_id, {}))


def _check(questions: list[Question], source: Any) -> None:
    if not questions:
        msg = f"{source} holds no question."
        raise ValueError(msg)
    seen: set[str] = set()
    for question in questions:
        if question.id in seen:
            msg = f"{source}: the query id {question.id!r} comes twice; give each query an id of its own."
            raise ValueError(msg)
        seen.add(question.id)


def _objects(file: Path) -> Iterator[dict[str, Any]]:
    return (row for _, row in read_json_lines(file, "questions are read from JSON lines"))


def _data_set(path: Path, name: str, split: str) -> list[dict[str, Any]]:
    if path.suffix == ".parquet":
        if not path.is_file():
            msg = f"{path} is missing."
            raise FileNotFoundError(msg)
        from pyarrow import parquet

        return parquet.read_table(path).to_pylist()
    from datasets import load_dataset

    try:
        return list(load_dataset(name, split=split))
    except Exception as error:  # the library raises many kinds
        msg = f"{name} is no folder, no .jsonl or .parquet file, and no data set that could be loaded: {error}"
        raise FileNotFoundError(msg) from error
