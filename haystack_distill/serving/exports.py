# SPDX-FileCopyrightText: 2026-present haystack-distill contributors
#
# SPDX-License-Identifier: Apache-2.0

"""Exported encoders: what is in their folder, and the checks before one is served."""

import hashlib
import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from haystack_distill.files.folders import write_json

FORMAT = 1
"""Of export.json and of what a graph takes and gives; a reader refuses any other."""

BACKENDS, PRECISIONS = ("onnx", "openvino", "torch"), ("fp32", "int8")
MANIFEST, GRAPH, TOKENIZER, CHECK = "export.json", "model.onnx", "tokenizer.json", "check.npy"
WEIGHTS = "model.safetensors"
"""The file in a student's folder, and in its exports, that says what index it was made for."""


@dataclass(frozen=True)
class Export:
    """
    What `export.json` holds.

    :param backend: `onnx`, `openvino` or `torch`.
    :param precision: `fp32` or `int8`.
    :param student: SHA-256 of the weights it was made from.
    :param prompt: Put before every query.
    :param check_queries: Queries whose vectors at full precision are in `check.npy`, `[queries, dim]`.
    :param cosine: Mean cosine between the export's vectors of these queries and those at full precision.
    :param share: Dev nDCG@10 of the export divided by that at full precision.
    :param files: Name -> SHA-256 of every other file of the folder.
    :param made_with: Versions of the packages that made it, and the ONNX opset.
    :param format: Of this file.
    """

    backend: str
    precision: str
    student: str
    prompt: str
    check_queries: list[str]
    cosine: float
    share: float
    files: dict[str, str] = field(default_factory=dict)
    made_with: dict[str, Any] = field(default_factory=dict)
    format: int = FORMAT


def export_name(backend: str, precision: str) -> str:
    """
    The folder of an export beside its model.

    :param backend: `onnx`, `openvino` or `torch`.
    :param precision: `fp32` or `int8`.
    :returns: The name, as in `onnx-int8`.
    :raises ValueError: If one of them is not known.
    """
    if backend not in BACKENDS or precision not in PRECISIONS:
        msg = (
            f"There is no backend {backend!r} with precision {precision!r}: backends are {', '.join(BACKENDS)}, "
            f"precisions {' and '.join(PRECISIONS)}."
        )
        raise ValueError(msg)
    return f"{backend}-{precision}"


def split_name(name: str) -> tuple[str, str]:
    """
    Take the name of an export apart.

    :param name: As in `onnx-int8`.
    :returns: Backend and precision.
    :raises ValueError: If it is not a name of this form.
    """
    backend, _, precision = name.partition("-")
    export_name(backend, precision)
    return backend, precision


def exports_of(model: Path) -> list[str]:
    """
    The exports beside a model.

    :param model: The model's folder.
    :returns: Their names.
    """
    names = [export_name(backend, precision) for backend in BACKENDS for precision in PRECISIONS]
    return [name for name in names if (model / name / MANIFEST).is_file()]


def write_manifest(folder: Path, export: Export) -> None:
    """
    Write `export.json`, last of all files, with the checksums of the others.

    :param folder: The folder of the export.
    :param export: What it says.
    """
    files = {file.name: digest(file) for file in sorted(folder.iterdir()) if file.name != MANIFEST}
    write_json(folder / MANIFEST, {**asdict(export), "files": files})


def read_export(folder: Path) -> Export:
    """
    Read an export and make sure that it is whole and belongs to the model it lies beside.

    :param folder: The folder of the export; on its own, away from the model, it is read as well.
    :returns: What `export.json` says.
    :raises FileNotFoundError: If there is no export in the folder.
    :raises ValueError: If it was made by another version of this package or from other weights, or a file is damaged.
    """
    if not (folder / MANIFEST).is_file():
        msg = f"{folder} holds no exported encoder ({MANIFEST} is missing): run `haystack-distill export` on the model."
        raise FileNotFoundError(msg)
    again = f"delete {folder} and run `haystack-distill export` again."
    try:
        content = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
    except ValueError as error:
        msg = f"{folder / MANIFEST} is damaged ({error}): {again}"
        raise ValueError(msg) from error
    if content.get("format") != FORMAT:
        msg = f"{folder} was exported by another version of haystack-distill (format {content.get('format')}): {again}"
        raise ValueError(msg)
    export = Export(**content)
    for name, expected in export.files.items():
        file = folder / name
        if not file.is_file() or digest(file) != expected:
            msg = f"{file} is damaged (its checksum differs from {MANIFEST}): {again}"
            raise ValueError(msg)
    weights = folder.parent / WEIGHTS
    if weights.is_file() and digest(weights) != export.student:
        msg = f"{folder} was exported from other weights than {weights}: {again}"
        raise ValueError(msg)
    return export


def check_vectors(folder: Path) -> np.ndarray:
    """
    The vectors at full precision of an export's check queries. `[queries, dim]`.

    :param folder: The folder of the export.
    """
    vectors: np.ndarray = np.load(folder / CHECK, allow_pickle=False)
    return vectors


def mean_cosine(first: np.ndarray, second: np.ndarray) -> float:
    """
    The mean cosine between rows; NaN where a row is not a vector.

    :param first: `[rows, dim]`.
    :param second: `[rows, dim]`.
    """
    lengths = np.linalg.norm(first, axis=1) * np.linalg.norm(second, axis=1)
    with np.errstate(invalid="ignore", divide="ignore"):
        return float(np.mean(np.sum(first * second, axis=1) / lengths))


def digest(file: Path) -> str:
    """
    SHA-256 of a file.

    :param file: The file.
    """
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
