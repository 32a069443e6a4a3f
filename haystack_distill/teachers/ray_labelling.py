"""
Labelling with several workers through Ray Data, on one machine or a cluster.

Workers score; only the process that was started writes, so nodes need no common file system and a killed run resumes as
any other.
"""

import json
import logging
from collections.abc import Callable, Iterator
from dataclasses import asdict
from typing import Any

from haystack_distill.data.training_set import Row
from haystack_distill.teachers.labelling import Label, Scoring, Work, labels_of
from haystack_distill.teachers.scores import Teacher


class _Worker:
    """Holds one teacher and scores what it is given; texts travel as JSON, which Ray need not understand."""

    def __init__(self, make_teacher: Callable[[], Teacher]) -> None:
        self.teacher = make_teacher()

    def __call__(self, batch: dict[str, Any]) -> dict[str, Any]:
        results = []
        for piece in batch["work"]:
            read = [(name, Row(**row)) for name, row in json.loads(str(piece))]
            labels = labels_of(self.teacher, [row for _, row in read])
            results.append(json.dumps([(read[number][0], asdict(outcome)) for number, outcome in labels]))
        return {"labels": results}


def many_workers(make_teacher: Callable[[], Teacher], num_workers: int) -> Scoring:
    """Score in processes, for `label`, each with a teacher of its own; an ImportError if Ray is not installed."""
    try:
        import ray
    except ImportError as error:
        msg = "num_workers above 1 needs Ray: pip install 'haystack-distill[ray]'."
        raise ImportError(msg) from error

    def scoring(work: Iterator[Work]) -> Iterator[tuple[str, Label]]:
        started = not ray.is_initialized()
        if started:
            ray.init(log_to_driver=False, include_dashboard=False, logging_level=logging.WARNING)
        try:
            ray.data.DataContext.get_current().enable_progress_bars = False
            pieces = [{"work": json.dumps([(name, asdict(row)) for name, row in piece])} for piece in work]
            if not pieces:
                return
            data = ray.data.from_items(pieces, override_num_blocks=len(pieces))
            scored = data.map_batches(
                _Worker, fn_constructor_args=(make_teacher,), batch_size=1, concurrency=num_workers
            )
            for result in scored.iter_rows():
                for name, outcome in json.loads(result["labels"]):
                    yield name, Label(**outcome)
        finally:
            if started:
                ray.shutdown()

    return scoring
