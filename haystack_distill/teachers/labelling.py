"""
Labelling a training set with a teacher, so that nothing computed is ever lost and nothing is mixed.

Every scored row goes to a journal beside its shard at once. A finished shard is written again with its scores in one
step, and its journal is removed. Whenever the process dies, the next run reads the journals and goes on with the first
row that has no score. One labeller at a time holds the folder's lock, and the manifest binds the set to one teacher.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from haystack_distill.data.training_set import Row, TrainingSet
from haystack_distill.files.bulk import bulk
from haystack_distill.files.journal import Journal
from haystack_distill.files.progress import progress_bar
from haystack_distill.files.runs import alone, differing
from haystack_distill.teachers.prompts import UnscorableError
from haystack_distill.teachers.scores import ROWS_AT_ONCE, Candidates, Scored, Teacher, total_usage

LOCK = ".labelling.lock"


@dataclass(frozen=True)
class Label:
    """
    What became of a row.

    :param scores: None if it was set aside, for a `reason`.
    :param cut: How many passages were too long to be read whole.
    :param usage: See `Scored.usage`.
    """

    query_id: str
    scores: list[float] | None
    cut: int = 0
    reason: str = ""
    usage: dict[str, int] = field(default_factory=dict)


Work = list[tuple[str, Row]]
"""Rows to score, each with the name of its shard."""


def label(
    folder: str | Path,
    identity: dict[str, Any],
    make_teacher: Callable[[], Teacher],
    *,
    rows_at_once: int = ROWS_AT_ONCE,
    num_workers: int = 1,
    progress: bool = True,
) -> dict[str, Any]:
    """
    Fill in the teacher scores of a training set.

    :param make_teacher: Gives the teacher to the process that scores, or to each of them: see `files.bulk`.
    :returns: See `summary_of`.
    :raises ValueError: If the set holds labels of another teacher, every row had to be set aside, or the teacher gives
        too few scores.
    :raises BlockingIOError: If another labeller works on the set.
    :raises OSError: If the folder can't be written; what was labelled before is kept.
    """
    path = TrainingSet.open(folder).folder
    busy = f"Another labeller works on {path}: wait for it, or label a copy of the set."
    with alone(path / LOCK, busy), _explained(path):
        training_set = TrainingSet.open(path)  # again: it may have changed while the lock was waited for
        _claim(training_set, identity)
        unfinished = [name for name in training_set.shards if "labelled" not in training_set.manifest["shards"][name]]
        journals = {name: _Journal(path, name) for name in unfinished}
        left = {name: len(_pending(training_set, name, journal)) for name, journal in journals.items()}
        total, done = len(training_set), len(training_set) - sum(left.values())
        with progress_bar("Labelling", total, done, shown=progress) as show:
            for name in [name for name, count in left.items() if count == 0]:
                _finish(training_set, name, journals[name])
            work = _work(training_set, journals, rows_at_once)
            for name, outcome in bulk(work, partial(_scoring, make_teacher), num_workers):
                journals[name].append(outcome)
                left[name] -= 1
                done += 1
                show(done)
                if left[name] == 0:
                    _finish(training_set, name, journals[name])
    summary = summary_of(training_set)
    if not summary["labelled"]:
        msg = f"No row of {path} could be labelled. The first: {summary['set_aside'][0]['reason']}"
        raise ValueError(msg)
    return summary


def _scoring(make_teacher: Callable[[], Teacher]) -> Callable[[Work], Iterator[tuple[str, Label]]]:
    teacher = make_teacher()

    def score(piece: Work) -> Iterator[tuple[str, Label]]:
        for number, outcome in labels_of(teacher, [row for _, row in piece]):
            yield piece[number][0], outcome

    return score


def labels_of(teacher: Teacher, rows: list[Row]) -> Iterator[tuple[int, Label]]:
    """
    Score rows; one that can't be scored is set aside and costs the others nothing.

    :returns: The number of each row and its label, as soon as it is there.
    :raises ValueError: If the teacher does not give one score a passage.
    """
    asked = [Candidates(row.query, row.documents, row.answers) for row in rows]
    score_each = getattr(teacher, "score_each", partial(_each, teacher))
    for number, outcome in score_each(asked):
        query_id, passages = rows[number].query_id, len(rows[number].documents)
        if isinstance(outcome, UnscorableError):
            yield number, Label(query_id, None, reason=str(outcome), usage=outcome.usage)
            continue
        if len(outcome.scores) != passages:
            msg = (
                f"{type(teacher).__name__} gave {len(outcome.scores)} scores for the {passages} passages of the query "
                f"{query_id!r}: mend it and start again, what was labelled before is kept."
            )
            raise ValueError(msg)
        scores = [float(score) for score in outcome.scores]
        yield number, Label(query_id, scores, len(outcome.cut), usage=outcome.usage)


def _each(teacher: Teacher, asked: list[Candidates]) -> Iterator[tuple[int, Scored | UnscorableError]]:
    """Score all together, or, if one of them can't be scored, each alone."""
    try:
        yield from enumerate(teacher.score(asked))
    except UnscorableError as error:
        if len(asked) == 1:
            yield 0, error
            return
        for number, row in enumerate(asked):
            yield from ((number, outcome) for _, outcome in _each(teacher, [row]))


def summary_of(training_set: TrainingSet) -> dict[str, Any]:
    """
    What the labels of a set look like.

    :returns: `rows`, `labelled`, `set_aside` (`query_id` and `reason` of each), `cut_passages`, `usage` (calls and
        tokens that a chat model was paid for the labels), `all_equal` (rows whose scores are all the same), `spread`
        (median over rows of the standard deviation of scores), `first_agrees` (share of rows whose best passage is the
        retriever's too) and `kendall_tau` (mean over rows, with the retriever's order).
    """
    from scipy import stats  # takes a second to import

    shards = training_set.manifest["shards"].values()
    scores = [np.array(row.teacher_scores) for row in training_set if row.teacher_scores is not None]
    spreads = [float(of_row.std()) for of_row in scores]
    ranked = [of_row for of_row, spread in zip(scores, spreads, strict=True) if spread > 0]
    agreement = [stats.kendalltau(of_row, -np.arange(len(of_row))).statistic for of_row in ranked]
    return {
        "rows": len(training_set),
        "labelled": len(scores),
        "set_aside": [left for shard in shards for left in shard.get("set_aside", [])],
        "cut_passages": sum(shard.get("cut_passages", 0) for shard in shards),
        "usage": total_usage(shard.get("usage", {}) for shard in shards),
        "all_equal": len(scores) - len(ranked),
        "spread": float(np.median(spreads)) if spreads else 0.0,
        "first_agrees": float(np.mean([of_row.argmax() == 0 for of_row in ranked])) if ranked else 0.0,
        "kendall_tau": float(np.mean(agreement)) if agreement else 0.0,
    }


class _Journal:
    """The labels of a shard that is not finished."""

    def __init__(self, folder: Path, shard: str) -> None:
        self._journal = Journal(folder / f".{shard}.labels.jsonl")
        self.file = self._journal.file
        self.labels = {row["query_id"]: Label(**row) for row in self._journal.rows}

    def append(self, outcome: Label) -> None:
        self._journal.append(vars(outcome))
        self.labels[outcome.query_id] = outcome


def _work(training_set: TrainingSet, journals: dict[str, _Journal], size: int) -> Iterator[Work]:
    piece: Work = []
    for name, journal in journals.items():
        # Questions about the same documents together: a teacher may read what they share once.
        for row in sorted(_pending(training_set, name, journal), key=lambda row: row.document_ids[:1]):
            piece.append((name, row))
            if len(piece) == size:
                yield piece
                piece = []
    if piece:
        yield piece


def _pending(training_set: TrainingSet, name: str, journal: _Journal) -> list[Row]:
    rows = training_set.read_shard(name)
    return [row for row in rows if row.teacher_scores is None and row.query_id not in journal.labels]


def _finish(training_set: TrainingSet, name: str, journal: _Journal) -> None:
    """Write the shard with its scores, then say so in the manifest, then remove the journal: in this order."""
    rows = training_set.read_shard(name)
    labels = journal.labels
    rows = [replace(row, teacher_scores=labels[row.query_id].scores) if row.query_id in labels else row for row in rows]
    training_set.write_shard(name, rows)
    training_set.manifest["shards"][name] |= {
        "labelled": sum(row.teacher_scores is not None for row in rows),
        "cut_passages": sum(outcome.cut for outcome in labels.values()),
        "usage": total_usage(outcome.usage for outcome in labels.values()),
        "set_aside": [
            {"query_id": key, "reason": outcome.reason} for key, outcome in labels.items() if outcome.scores is None
        ],
    }
    training_set.save_manifest()
    journal.file.unlink(missing_ok=True)


def _claim(training_set: TrainingSet, identity: dict[str, Any]) -> None:
    """Bind the set to one teacher before its first label is written; one that scored no row has no hold on it."""
    before = training_set.manifest["teacher"]
    if before is not None and differing(before, identity) and not _has_scores(training_set):
        for name, shard in training_set.manifest["shards"].items():
            for mark in ("labelled", "cut_passages", "usage", "set_aside"):
                shard.pop(mark, None)
            _Journal(training_set.folder, name).file.unlink(missing_ok=True)
        before = None
    if before is None:
        training_set.manifest["teacher"] = identity
        training_set.save_manifest()
    elif differs := differing(before, identity):
        msg = (
            f"{training_set.folder} holds labels of another teacher ({differs[0]} was {before.get(differs[0])!r}, now "
            f"{identity.get(differs[0])!r}), and labels are never mixed: label a copy, "
            "TrainingSet.open(folder).without_labels(new_folder), or use the same teacher."
        )
        raise ValueError(msg)


def _has_scores(training_set: TrainingSet) -> bool:
    shards = training_set.manifest["shards"]
    journals = (_Journal(training_set.folder, name) for name in shards)
    return any(shard.get("labelled") for shard in shards.values()) or any(
        outcome.scores is not None for journal in journals for outcome in journal.labels.values()
    )


@contextmanager
def _explained(folder: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if isinstance(error, ConnectionError):
            raise
        if not folder.is_dir():
            msg = f"The training set {folder} was removed while it was labelled: its labels are gone with it."
            raise FileNotFoundError(msg) from error
        msg = f"Labels can't be written to {folder} ({error}): all before are kept; make room and start again."
        raise OSError(msg) from error
