"""Exported encoders: what is in their folder, and the checks before one is served."""

import hashlib
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from typing_extensions import TypedDict

from haystack_distill.files.folders import write_json
from haystack_distill.files.shapes import read_json
from haystack_distill.serving.backends import EXPORTS

FORMAT = 1
"""The version of export.json and of what a graph takes and gives; a reader refuses any other."""

MANIFEST, GRAPH, TOKENIZER, CHECK = "export.json", "model.onnx", "tokenizer.json", "check.npy"
WEIGHTS = "model.safetensors"
"""The file in a student's folder, and in its exports, that says what index it was made for."""


class _Versioned(TypedDict):
    format: int


@dataclass(frozen=True)
class Export:
    """
    What `export.json` holds.

    :param student: SHA-256 of the weights it was made from.
    :param prompt: What is put before every query.
    :param check_queries: Queries whose vectors at full precision are in `check.npy`, `[queries, dim]`.
    :param cosine: Mean cosine between the export's vectors of these queries and those at full precision.
    :param share: Dev nDCG@10 of the export divided by that at full precision.
    :param files: Name -> SHA-256 of every other file of the folder.
    :param made_with: Versions of the packages that made it, and the ONNX opset.
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


def exports_of(model: Path) -> list[str]:
    """Name the exports beside a model."""
    return [name for name in EXPORTS if (model / name / MANIFEST).is_file()]


def write_manifest(folder: Path, export: Export) -> None:
    """Write `export.json`, last of all files, with the checksums of the others."""
    files = {file.name: digest(file) for file in sorted(folder.iterdir()) if file.name != MANIFEST}
    write_json(folder / MANIFEST, {**asdict(export), "files": files})


def read_export(folder: Path) -> Export:
    """
    Read `export.json`, and make sure that the export is whole and belongs to the model beside it, if there is one.

    :raises FileNotFoundError: If there is no export in the folder.
    :raises ValueError: If it was made by another version of this package or from other weights, or a file is damaged.
    """
    if not (folder / MANIFEST).is_file():
        msg = f"{folder} holds no exported encoder ({MANIFEST} is missing): run `haystack-distill export` on the model."
        raise FileNotFoundError(msg)
    again = f"delete {folder} and run `haystack-distill export` again."
    version = read_json(folder / MANIFEST, _Versioned, again)["format"]
    if version != FORMAT:
        msg = f"{folder} was exported by another version of haystack-distill (format {version}): {again}"
        raise ValueError(msg)
    export: Export = read_json(folder / MANIFEST, Export, again)
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
    """Read the vectors of an export's check queries at full precision, `[queries, dim]`."""
    try:
        vectors: np.ndarray = np.load(folder / CHECK, allow_pickle=False)
    except (ValueError, EOFError) as error:
        msg = f"{folder / CHECK} is damaged ({error}): delete {folder} and run `haystack-distill export` again."
        raise ValueError(msg) from error
    return vectors


def digest(file: Path) -> str:
    """Compute the SHA-256 of a file."""
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
