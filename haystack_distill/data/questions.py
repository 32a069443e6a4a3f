"""Questions to train on, with answers where there are any: of a file, a BEIR folder, or a `datasets` name."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from haystack_distill.data.beir import Qrels, read_corpus, read_qrels, split_file
from haystack_distill.data.tables import read_parquet
from haystack_distill.files.json_lines import read_json_lines
from haystack_distill.files.texts import read_cells


@dataclass(frozen=True)
class Question:
    """A question, with reference answers and with judgments (document id -> grade) where there are any."""

    id: str
    text: str
    answers: list[str]
    judged: dict[str, int]


def read_questions(source: str | Path, split: str = "train") -> list[Question]:
    """
    Read questions, in their order.

    :param source: A BEIR folder, a `.jsonl`, `.csv`, `.tsv` or `.parquet` file with `_id`, `text` and perhaps
        `metadata.answers` or `answers`, or the name of a data set for the `datasets` library with such columns.
    :param split: Of a BEIR folder with judgments: only their queries; or of the data set.
    :raises FileNotFoundError: If there is no such file, folder or data set.
    :raises ValueError: If a row has no text, an id comes twice, or there is no question.
    """
    path = Path(source)
    rows = read_rows(path / "queries.jsonl" if path.is_dir() else source, split)
    questions = [_question(row, f"{source}, row {number}", number) for number, row in rows]
    if not questions:
        msg = f"{source} holds no question."
        raise ValueError(msg)
    seen: set[str] = set()
    for question in questions:
        if question.id in seen:
            msg = f"{source}: the query id {question.id!r} comes twice; give each query an id of its own."
            raise ValueError(msg)
        seen.add(question.id)
    judgments = _judgments(path, split, seen)
    if judgments is None:
        return questions
    judged = [replace(question, judged=judgments[question.id]) for question in questions if question.id in judgments]
    if not judged:
        msg = f"{source} holds no question: {split}.tsv judges nothing relevant."
        raise ValueError(msg)
    return judged


def _judgments(path: Path, split: str, query_ids: set[str]) -> Qrels | None:
    """What a BEIR folder judges; None where there are no judgments at all."""
    file = split_file(path, split)
    if file is None:
        return None
    corpus = path / "corpus.jsonl"  # without it they are about the documents of a store
    return read_qrels(file, query_ids, read_corpus(corpus).documents if corpus.is_file() else None)


def _question(row: dict[str, Any], where: str, number: int) -> Question:
    text = row.get("text", row.get("query", row.get("question")))
    if not isinstance(text, str) or not text.strip():
        msg = f"{where}: the question is empty; remove it, or name its column `text`."
        raise ValueError(msg)
    metadata = row.get("metadata")
    answers = row.get("answers", metadata.get("answers") if isinstance(metadata, dict) else None)
    if isinstance(answers, dict):  # SQuAD's form
        answers = answers.get("text")
    if answers is None or isinstance(answers, str):
        answers = [answers] if answers else []
    try:
        answers = [str(answer) for answer in answers]
    except TypeError as error:
        msg = f"{where}: the answers must be a text or a list of texts, not {answers!r}."
        raise ValueError(msg) from error
    return Question(str(row.get("_id", row.get("query_id", row.get("id", number - 1)))), text, answers, {})


def read_rows(source: str | Path, split: str = "train") -> list[tuple[int, dict[str, Any]]]:
    """
    Read rows of named columns, with their numbers.

    :param source: A `.jsonl`, `.csv`, `.tsv` or `.parquet` file, or the name of a data set for the `datasets` library.
    :param split: Of the data set.
    :raises FileNotFoundError: If there is no such file or data set.
    :raises ValueError: If the file is not what its name says.
    """
    path = Path(source)
    if path.suffix == ".jsonl":
        return list(read_json_lines(path, "questions are read from JSON lines"))
    if path.suffix in {".csv", ".tsv"}:
        return list(_table(path))
    return list(enumerate(read_parquet(path) if path.suffix == ".parquet" else _data_set(str(source), split), start=1))


def _table(file: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """The rows of a CSV or TSV file, whose first line names the columns; empty cells are left out."""
    rows = read_cells(file, "\t" if file.suffix == ".tsv" else ",")
    _, names = next(rows, (0, []))
    for number, cells in rows:
        if len(cells) > len(names):
            msg = f"{file}, line {number}: it has more cells than the first line has columns."
            raise ValueError(msg)
        if cells:
            yield number, {name: cell for name, cell in zip(names, cells, strict=False) if cell}


def _data_set(name: str, split: str) -> list[dict[str, Any]]:
    from datasets import load_dataset

    try:
        return list(load_dataset(name, split=split))
    except Exception as error:  # the library raises many kinds
        msg = f"{name} is no folder, no .jsonl, .csv or .parquet file, and no data set that could be loaded: {error}"
        raise FileNotFoundError(msg) from error
