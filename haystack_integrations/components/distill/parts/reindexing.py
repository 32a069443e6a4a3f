# SPDX-FileCopyrightText: 2026-present haystack-distill contributors
#
# SPDX-License-Identifier: Apache-2.0

"""What `IndexSwitcher` does: check, make the new index or what is left of it, judge it, move the pointer."""

import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from haystack.utils import ComponentDevice

from haystack_distill.data.beir import Qrels
from haystack_distill.data.index import IndexView
from haystack_distill.evaluation.comparison import System
from haystack_distill.evaluation.held_out import judged_split
from haystack_distill.evaluation.switching import Serving, judge, read_pointer, write_pointer
from haystack_distill.files.folders import alone, claim
from haystack_distill.students.bi_encoder import BiEncoder
from haystack_integrations.components.distill.parts.reembedding import reembed
from haystack_integrations.components.distill.stores import index_of, teacher_of


@dataclass(frozen=True)
class _Side:
    """A query encoder and the index that it searches."""

    system: System
    index: IndexView


def reindex(settings: Any, queries: str) -> dict[str, Any]:
    """
    Make a new index and let it take over if it is not worse.

    :param settings: An `IndexSwitcher`.
    :param queries: A BEIR folder.
    :returns: `switched`, `metrics` and `pointer`.
    :raises BlockingIOError: If another run works on the same pointer.
    :raises DocumentStoreError: If a store can't be read to its end.
    :raises FileNotFoundError: If the queries are missing.
    :raises ValueError: See `IndexSwitcher.run`.
    """
    old, new, now = _serving_old(settings), _serving_new(settings), read_pointer(settings.pointer)
    workspace = Path(settings.pointer).with_name(f".{Path(settings.pointer).name}.run")
    if now == new:
        shutil.rmtree(workspace, ignore_errors=True)
        return {"switched": True, "metrics": {}, "pointer": settings.pointer}
    _check_serves(settings.pointer, now, old)
    lock = workspace.with_suffix(".lock")
    with (
        alone(lock, f"Another run works on {workspace}: wait for it."),
        tempfile.TemporaryDirectory(prefix="haystack-distill-") as copy,
    ):
        _check_nothing_else_in(settings.new_document_store, workspace, settings.pointer)
        before, texts, qrels = _old_side(settings, Path(copy) / "old", queries)
        claim(workspace, {"new_index": vars(new), "source": vars(old), "fields": settings.meta_fields_to_embed})
        if now is None:
            write_pointer(settings.pointer, old)
        after = _new_side(settings, Path(copy) / "new", new, before.index)
        metrics = judge(
            (before.system, before.index), (after.system, after.index), texts, qrels, max_loss=settings.max_loss
        )
        if metrics["not_worse"]:
            write_pointer(settings.pointer, new, old, metrics=metrics)
            shutil.rmtree(workspace, ignore_errors=True)
    return {"switched": metrics["not_worse"], "metrics": metrics, "pointer": settings.pointer}


def _serving_old(settings: Any) -> Serving:
    return Serving(settings.query_model or settings.teacher, settings.teacher, settings.document_store.to_dict())


def _serving_new(settings: Any) -> Serving:
    pair, store = Path(settings.model), settings.new_document_store.to_dict()
    if (pair / "query").is_dir():
        return Serving(str(pair / "query"), str(pair / "document"), store)
    return Serving(settings.model, settings.model, store)


def _check_serves(pointer: str, now: Serving | None, old: Serving) -> None:
    if now is not None and now != old:
        differs = [name for name in vars(old) if getattr(now, name) != getattr(old, name)]
        msg = (
            f"{pointer} says that another index serves than is given (its {' and '.join(differs)} differ): give what "
            "it names, so that the new index is compared with what is really in use."
        )
        raise ValueError(msg)


def _check_nothing_else_in(store: Any, workspace: Path, pointer: str) -> None:
    held = store.count_documents()
    if held and not (workspace / "run.json").exists():
        msg = (
            f"The new index holds {held} documents that no unfinished run of {pointer} put there: name an empty index. "
            "This one was not touched."
        )
        raise ValueError(msg)


def _old_side(settings: Any, copy: Path, queries: str) -> tuple[_Side, dict[str, str], Qrels]:
    index, teacher = index_of(settings, copy), teacher_of(settings)
    teacher.check_belongs_to(index)
    texts, qrels = judged_split(queries, settings.split, index)
    encoder = _encoder(settings, settings.query_model) if settings.query_model else teacher
    return _Side(System("old", encoder.encode_queries, 0), index), texts, qrels


def _new_side(settings: Any, copy: Path, new: Serving, old: IndexView) -> _Side:
    query, document = _encoder(settings, new.query_model), _encoder(settings, new.document_model)
    if query.dim != document.dim:
        msg = f"{new.query_model} makes vectors of length {query.dim} and {new.document_model} of {document.dim}."
        raise ValueError(msg)
    made = SimpleNamespace(
        document_store=settings.new_document_store,
        meta_fields_to_embed=settings.meta_fields_to_embed,
        embedding_separator=settings.embedding_separator,
        similarity=None,
    )
    reembed(
        settings.document_store,
        made.document_store,
        document,
        made.meta_fields_to_embed,
        made.embedding_separator,
        progress=settings.progress_bar,
    )
    index = index_of(made, copy)
    document.check_belongs_to(index)
    if sorted(index.ids) != sorted(old.ids):
        msg = f"The new index holds {len(index)} embedded documents and the old one {len(old)}: run again."
        raise ValueError(msg)
    return _Side(System("new", query.encode_queries, 0), index)


def _encoder(settings: Any, name: str) -> BiEncoder:
    return BiEncoder.load(name, device=ComponentDevice.resolve_device(settings.device).to_torch_str())
