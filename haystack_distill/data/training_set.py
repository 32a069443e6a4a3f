"""
The one data contract: a training set is a folder of Parquet shards and a `training_set.json`.

One row a query. Shards are written to a temporary name and moved into place, so a folder holds whole shards or none.
"""

import math
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Annotated, Any

import pyarrow as pa
from pyarrow import parquet
from pydantic import ConfigDict, Field
from typing_extensions import TypedDict

from haystack_distill.data.tables import read_parquet
from haystack_distill.files.folders import published, write_json, written
from haystack_distill.files.shapes import read_json, refuse_halves, shaped

VERSION = 1
MANIFEST = "training_set.json"
RECIPROCAL_RANK = "reciprocal_rank"
"""The `similarity` of a set whose candidates were found by words, not vectors."""

SCHEMA = pa.schema(
    [
        ("query_id", pa.string()),
        ("query", pa.string()),
        ("answers", pa.list_(pa.string())),
        ("document_ids", pa.list_(pa.string())),
        ("documents", pa.list_(pa.string())),
        ("retriever_scores", pa.list_(pa.float64())),
        ("teacher_scores", pa.list_(pa.float64())),
        ("labels", pa.list_(pa.int64())),
    ]
)
LISTS = pa.field("lists", pa.map_(pa.string(), pa.list_(pa.struct([("id", pa.string()), ("score", pa.float64())]))))
"""A column that only sets of several retrievers have: retriever -> its whole list, the best first."""

SHARD_ROWS = 1000


class Versioned(TypedDict):
    """A manifest of any version."""

    version: int


class Shard(TypedDict):
    """What a manifest says of a shard, and what labelling found."""

    __pydantic_config__ = ConfigDict(extra="allow")  # type: ignore[misc]

    rows: Annotated[int, Field(ge=0)]


class Manifest(TypedDict):
    """What `training_set.json` holds. The names of shards are no paths: a set that came from elsewhere stays in it."""

    __pydantic_config__ = ConfigDict(extra="allow")  # type: ignore[misc]

    version: int
    source: Any
    retriever: Any
    similarity: Any
    teacher: dict[str, Any] | None
    shards: dict[Annotated[str, Field(pattern=r"^[\w-][\w.-]*$")], Shard]


@dataclass(frozen=True)
class Row:
    """
    A query and its candidates.

    :param document_ids: Ids in the store, in the retriever's order.
    :param documents: The texts, so that a teacher needs no store.
    :param retriever_scores: Scores of vectors; the reciprocal rank where the retriever has no vectors (`similarity` of
        the set says so).
    :param labels: Judgments of people, where there are any.
    :param lists: Retriever -> document id -> its score as the retriever gives it, the best first, candidates or not;
        only where several retrievers are to be joined.
    """

    query_id: str
    query: str
    answers: list[str]
    document_ids: list[str]
    documents: list[str]
    retriever_scores: list[float]
    teacher_scores: list[float] | None = None
    labels: list[int] | None = None
    lists: dict[str, dict[str, float]] | None = None

    def scores_of(self, retriever: str) -> list[float | None]:
        """A retriever's own score of each candidate; None where it did not return it."""
        return [(self.lists or {}).get(retriever, {}).get(document_id) for document_id in self.document_ids]

    def check(self) -> None:
        """Refuse, with a ValueError, columns of unequal length, an id that comes twice, and a score that is none."""
        for text in (self.query_id, self.query, *self.answers, *self.document_ids, *self.documents):
            refuse_halves(text, f"What was found for the query {self.query_id!r}")
        columns = ("documents", "retriever_scores", "teacher_scores", "labels")
        for name in columns:
            values = getattr(self, name)
            if values is not None and len(values) != len(self.document_ids):
                msg = f"The query {self.query_id!r} has {len(self.document_ids)} document ids and {len(values)} {name}."
                raise ValueError(msg)
        seen: set[str] = set()
        for document_id in self.document_ids:
            if document_id in seen:
                msg = f"The document {document_id!r} comes twice for the query {self.query_id!r}: give each once."
                raise ValueError(msg)
            seen.add(document_id)
        for name in ("retriever_scores", "teacher_scores"):
            if any(not math.isfinite(score) for score in getattr(self, name) or []):
                msg = f"The {name} of the query {self.query_id!r} are not all numbers: {getattr(self, name)}."
                raise ValueError(msg)


class TrainingSet:
    """
    A training set on disk.

    ```python
    from haystack_distill.data.training_set import TrainingSet

    training_set = TrainingSet.open("training_set")
    print(training_set.manifest["teacher"])
    for row in training_set.labelled():
        print(row.query, row.teacher_scores)
    ```

    :param manifest: What `training_set.json` holds: `version`, `source`, `retriever`, `similarity`, `teacher` (None
        until labelled), `shards` (file name -> `rows`, and what labelling found) and `rows`.
    """

    def __init__(self, folder: Path, manifest: dict[str, Any]) -> None:
        self.folder = folder
        self.manifest = manifest

    @classmethod
    def open(cls, folder: str | Path) -> "TrainingSet":
        """
        Open a training set.

        :raises FileNotFoundError: If the folder, its manifest or a shard is missing.
        :raises ValueError: If the manifest is broken or of another version.
        """
        path = Path(folder)
        file = path / MANIFEST
        if not file.is_file():
            msg = f"{path} is no training set (no {MANIFEST} in it): make one with TrainingSetBuilder."
            raise FileNotFoundError(msg)
        again = "restore it, or build the training set again."
        version = read_json(file, Versioned, again)["version"]
        if version != VERSION:
            msg = f"{path} is of version {version}, this package reads version {VERSION}: build the set again."
            raise ValueError(msg)
        manifest = read_json(file, Manifest, again)
        missing = [name for name in manifest["shards"] if not (path / name).is_file()]
        if missing:
            msg = f"{path} lacks its shard {missing[0]} ({len(missing)} of {len(manifest['shards'])} are missing)."
            raise FileNotFoundError(msg)
        return cls(path, manifest)

    @property
    def shards(self) -> list[str]:
        """The file names of the shards, in order."""
        return list(self.manifest["shards"])

    def read_shard(self, name: str) -> list[Row]:
        """
        Read the rows of a shard.

        :raises ValueError: If it is damaged, lacks a column, or holds a row that breaks the contract.
        """
        file = self.folder / name
        columns = read_parquet(file, SCHEMA, [LISTS])
        columns = [row | {LISTS.name: _as_dicts(row.get(LISTS.name))} for row in columns]
        rows = shaped(columns, list[Row], f"The shard {file} is damaged")
        try:
            for row in rows:
                row.check()
        except ValueError as error:
            msg = f"The shard {file} is damaged: {error}"
            raise ValueError(msg) from error
        return rows

    def write_shard(self, name: str, rows: Iterable[Row]) -> None:
        """Write a shard in one step; a row that breaks the contract is a ValueError."""
        write_shard(self.folder / name, rows)

    def save_manifest(self) -> None:
        """Write the manifest in one step."""
        write_json(self.folder / MANIFEST, self.manifest)

    def __iter__(self) -> Iterator[Row]:
        """All rows, shard by shard."""
        for name in self.shards:
            yield from self.read_shard(name)

    def __len__(self) -> int:
        """The number of rows."""
        return sum(shard["rows"] for shard in self.manifest["shards"].values())

    def labelled(self) -> Iterator[Row]:
        """
        The rows that have teacher scores; those that labelling set aside are left out.

        :raises ValueError: If the set is not labelled to its end.
        """
        if self.manifest.get("teacher") is None:
            msg = f"{self.folder} has no teacher scores: label it with TeacherLabeller, or `haystack-distill label`."
            raise ValueError(msg)
        unfinished = [name for name, shard in self.manifest["shards"].items() if "labelled" not in shard]
        if unfinished:
            msg = (
                f"{self.folder} is labelled in part: {len(unfinished)} of {len(self.shards)} shards are left. Start "
                "labelling again; it goes on where it was."
            )
            raise ValueError(msg)
        return (row for row in self if row.teacher_scores is not None)

    def without_labels(self, folder: str | Path) -> "TrainingSet":
        """Copy the set into a new folder without its teacher scores, for another teacher."""
        return write_training_set(
            folder,
            (replace(row, teacher_scores=None) for row in self),
            **{name: self.manifest[name] for name in ("source", "retriever", "similarity")},
        )


def write_training_set(
    folder: str | Path,
    rows: Iterable[Row],
    *,
    source: str = "",
    retriever: str = "",
    similarity: str = "",
    teacher: dict[str, Any] | None = None,
    shard_rows: int = SHARD_ROWS,
) -> TrainingSet:
    """
    Write a training set into a new folder.

    :param retriever: The name of what found the candidates.
    :param similarity: What `retriever_scores` are.
    :param teacher: The identity of the teacher, where rows carry its scores.
    :raises FileExistsError: If the folder exists.
    :raises ValueError: If there are no rows, one breaks the contract, or two have one id.
    """
    with published(folder) as unfinished:
        shards: dict[str, dict[str, Any]] = {}
        seen: set[str] = set()
        rest = iter(rows)
        for number, chunk in enumerate(iter(lambda: list(islice(rest, shard_rows)), [])):
            for row in chunk:
                if row.query_id in seen:
                    msg = f"The query id {row.query_id!r} comes twice: give each query an id of its own."
                    raise ValueError(msg)
                seen.add(row.query_id)
            name = shard_name(number)
            write_shard(unfinished / name, chunk)
            shards[name] = {"rows": len(chunk)}
            if teacher is not None:
                shards[name]["labelled"] = sum(row.teacher_scores is not None for row in chunk)
        if not shards:
            msg = "There is no row to write: a training set needs at least one query."
            raise ValueError(msg)
        write_json(unfinished / MANIFEST, manifest_of(shards, source, retriever, similarity, teacher))
    return TrainingSet.open(folder)


def manifest_of(
    shards: dict[str, dict[str, Any]],
    source: str,
    retriever: str,
    similarity: str,
    teacher: dict[str, Any] | None = None,
) -> dict[str, Any]:
    """What `training_set.json` holds, see `write_training_set`; `shards` is file name -> `rows`."""
    return {
        "version": VERSION,
        "source": source,
        "retriever": retriever,
        "similarity": similarity,
        "teacher": teacher,
        "rows": sum(shard["rows"] for shard in shards.values()),
        "shards": shards,
    }


def shard_name(number: int) -> str:
    """The file name of a shard; they are counted from 0."""
    return f"shard-{number:05d}.parquet"


def write_shard(file: Path, rows: Iterable[Row]) -> None:
    """Write rows to a Parquet file in one step; a row that breaks the contract is a ValueError."""
    rows = list(rows)
    for row in rows:
        row.check()
    schema = SCHEMA.append(LISTS) if any(row.lists is not None for row in rows) else SCHEMA
    with written(file) as unfinished:
        columns = [asdict(row) | {LISTS.name: _as_pairs(row.lists)} for row in rows]
        parquet.write_table(pa.Table.from_pylist(columns, schema=schema), unfinished)


def _as_pairs(lists: dict[str, dict[str, float]] | None) -> list[tuple[str, list[dict[str, Any]]]] | None:
    """The lists of a row as Arrow's map wants them."""
    if lists is None:
        return None
    return [(name, [{"id": key, "score": score} for key, score in ranked.items()]) for name, ranked in lists.items()]


def _as_dicts(pairs: list[tuple[str, list[dict[str, Any]]]] | None) -> dict[str, dict[str, float]] | None:
    """The lists of a row as they were before `_as_pairs`."""
    return None if pairs is None else {name: {one["id"]: one["score"] for one in ranked} for name, ranked in pairs}
