"""What `IndexSwitcher` does: check, make the new index or what is left of it, judge it, move the pointer."""

import shutil
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from haystack.utils import ComponentDevice

from haystack_distill.data.beir import Qrels
from haystack_distill.data.index import IndexView
from haystack_distill.evaluation.comparison import System
from haystack_distill.evaluation.held_out import judged_split
from haystack_distill.evaluation.pointer import Serving, read_pointer, write_pointer
from haystack_distill.evaluation.switching import judge
from haystack_distill.files.bulk import check_workers
from haystack_distill.files.folders import full_disk_named
from haystack_distill.files.layout import RUN
from haystack_distill.files.runs import alone, claim
from haystack_distill.students.bi_encoder import BiEncoder
from haystack_integrations.components.distill.parts.reembedding import reembed
from haystack_integrations.components.distill.stores import EmbedderSettings, index_of, teacher_of


@dataclass(frozen=True)
class Switch:
    """What is to be replaced by what: the init parameters of an `IndexSwitcher`, which explains them."""

    document_store: Any
    embedder: EmbedderSettings
    new_document_store: Any
    model: str
    pointer: str
    query_model: str | None
    split: str
    max_loss: float
    device: ComponentDevice | None
    num_workers: int
    progress_bar: bool


@dataclass(frozen=True)
class _Side:
    """A query encoder and the index that it searches."""

    system: System
    index: IndexView


def reindex(settings: Switch, queries: str) -> dict[str, Any]:
    """Make a new index and let it take over if it is not worse; see `IndexSwitcher.run`."""
    check_workers(settings.num_workers)
    encoder, new, now = settings.embedder.model, _serving_new(settings), read_pointer(settings.pointer)
    old = Serving(settings.query_model or encoder, encoder, settings.document_store.to_dict())
    workspace = Path(settings.pointer).with_name(f".{Path(settings.pointer).name}.run")
    if now == new:
        shutil.rmtree(workspace, ignore_errors=True)
        return {"switched": True, "metrics": {}, "pointer": settings.pointer}
    _check_serves(settings.pointer, now, old)
    lock = workspace.with_suffix(".lock")
    busy = f"Another run works on {workspace}: wait for it."
    with alone(lock, busy), full_disk_named(workspace), ExitStack() as at_the_end:
        copies = workspace / "copies"
        at_the_end.callback(shutil.rmtree, copies, ignore_errors=True)
        run = {"new_index": vars(new), "source": vars(old), "fields": settings.embedder.meta_fields_to_embed}
        _claim(workspace, run, settings.new_document_store)
        before, texts, qrels = _old_side(settings, copies / "old", queries)
        if now is None:
            write_pointer(settings.pointer, old)
        after = _new_side(settings, copies / "new", new, before.index)
        metrics = judge(
            (before.system, before.index), (after.system, after.index), texts, qrels, max_loss=settings.max_loss
        )
        if metrics["not_worse"]:
            write_pointer(settings.pointer, new, old, metrics=metrics)
            shutil.rmtree(workspace, ignore_errors=True)
    return {"switched": metrics["not_worse"], "metrics": metrics, "pointer": settings.pointer}


def _serving_new(settings: Switch) -> Serving:
    pair, store = Path(settings.model), settings.new_document_store.to_dict()
    if (pair / "query").is_dir():
        return Serving(str(pair / "query"), str(pair / "document"), store)
    return Serving(settings.model, settings.model, store)


def _check_serves(pointer: str, now: Serving | None, old: Serving) -> None:
    if now is not None and now != old:
        differs = [name for name in vars(old) if getattr(now, name) != getattr(old, name)]
        msg = (
            f"{pointer} names another index as the one that serves (its {' and '.join(differs)} differ): give what it "
            "names, so that the new index is compared with what is really in use."
        )
        raise ValueError(msg)


def _claim(workspace: Path, run: dict[str, Any], store: Any) -> None:
    """Bind the workspace to this run, unless the new index holds documents that it did not put there."""
    file, held = workspace / RUN, store.count_documents()
    if not held:  # whatever ran before, there is nothing of it to go on with
        file.unlink(missing_ok=True)
    elif not file.exists():
        msg = (
            f"The new index holds {held} documents that no unfinished run put there: name an empty index. This one was "
            "not touched."
        )
        raise ValueError(msg)
    try:
        claim(workspace, run)
    except ValueError as error:
        msg = (
            f"The new index holds {held} documents of a run with other settings, which was killed or did not switch: "
            f"name an empty index, or go on with this one by giving the settings in {file}. It was not touched."
        )
        raise ValueError(msg) from error


def _old_side(settings: Switch, copy: Path, queries: str) -> tuple[_Side, dict[str, str], Qrels]:
    index = index_of(settings.document_store, settings.embedder, copy)
    teacher = teacher_of(settings.embedder, settings.device)
    teacher.check_belongs_to(index)
    texts, qrels = judged_split(queries, settings.split, index)
    encoder = _encoder(settings, settings.query_model) if settings.query_model else teacher
    return _Side(System("old", encoder.encode_queries, 0), index), texts, qrels


def _new_side(settings: Switch, copy: Path, new: Serving, old: IndexView) -> _Side:
    query, document = _encoder(settings, new.query_model), _encoder(settings, new.document_model)
    if query.dim != document.dim:
        msg = f"{new.query_model} makes vectors of length {query.dim} and {new.document_model} of {document.dim}."
        raise ValueError(msg)
    as_before = settings.embedder
    reembed(
        settings.document_store,
        settings.new_document_store,
        replace(document, num_workers=settings.num_workers),
        as_before.meta_fields_to_embed,
        as_before.embedding_separator,
        progress=settings.progress_bar,
    )
    index = index_of(settings.new_document_store, replace(as_before, similarity=None), copy)
    document.check_belongs_to(index)
    if sorted(index.ids) != sorted(old.ids):
        msg = f"The new index holds {len(index)} embedded documents and the old one {len(old)}: run again."
        raise ValueError(msg)
    return _Side(System("new", query.encode_queries, 0), index)


def _encoder(settings: Switch, name: str) -> BiEncoder:
    return BiEncoder.load(name, device=ComponentDevice.resolve_device(settings.device).to_torch_str())
