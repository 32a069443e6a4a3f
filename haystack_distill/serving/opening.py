"""Which backend serves a student: the one that was asked for, or the fastest that passes its check on this machine."""

import logging
import time
from importlib.util import find_spec
from pathlib import Path

import numpy as np

from haystack_distill.data.similarity import cosines
from haystack_distill.serving.backends import BACKENDS, EXPORTS, export_name, split_name
from haystack_distill.serving.encoder import Encoder, forgiving
from haystack_distill.serving.exports import MANIFEST, Export, check_vectors, exports_of, read_export
from haystack_distill.serving.graph import graph_encoder
from haystack_distill.serving.token_table import is_table, table_encoder

logger = logging.getLogger(__name__)

DRIFT = 0.002
"""How much further than on the machine that made it an export's vectors may be from full precision."""

ROUNDS = 5


def open_encoder(
    model: str | Path, backend: str = "auto", precision: str | None = None, threads: int = 1, device: str | None = None
) -> Encoder:
    """Load a student for serving, see `KaleQueryEncoder`; torch runs on the fastest device where none is named."""
    folder = Path(model)
    if backend != "auto" or precision is not None:
        export_name("torch" if backend == "auto" else backend, precision or "fp32")
    if threads < 1:
        msg = f"threads must be at least 1, not {threads}."
        raise ValueError(msg)
    if not folder.is_dir():
        msg = f"The query encoder {folder} is no folder: correct `model`."
        raise FileNotFoundError(msg)
    return forgiving(_open(folder, backend, precision, threads, device))


def _open(folder: Path, backend: str, precision: str | None, threads: int, device: str | None) -> Encoder:
    if (folder / MANIFEST).is_file():
        return _alone(folder, backend, precision, threads)
    if not (folder / "modules.json").is_file():
        msg = f"{folder} does not hold a sentence-transformers model (no modules.json in it): correct `model`."
        raise ValueError(msg)
    if is_table(folder):
        return table_encoder(folder)
    if backend == "auto":
        return _fastest(folder, precision, threads, device)
    return _named(folder, export_name(backend, precision or "fp32"), threads, device)


def _alone(folder: Path, backend: str, precision: str | None, threads: int) -> Encoder:
    """An export that was carried away from its model."""
    export = read_export(folder)
    if BACKENDS[export.backend].open_graph is None:
        msg = f"{folder} only says that {export.backend} may serve the model beside it: set `model` to that folder."
        raise ValueError(msg)
    if backend not in {"auto", export.backend} or precision not in {None, export.precision}:
        msg = f"{folder} is for {export.backend} with {export.precision}: leave `backend` and `precision` out."
        raise ValueError(msg)
    return graph_encoder(folder, export, threads)


def _named(folder: Path, name: str, threads: int, device: str | None) -> Encoder:
    backend, precision = split_name(name)
    has_graph = BACKENDS[backend].open_graph is not None
    if has_graph and device not in {None, "cpu"}:
        msg = f"The {backend} backend runs on the CPU, not on {device}: leave `device` out, or take the torch backend."
        raise ValueError(msg)
    if name in EXPORTS and not (folder / name / MANIFEST).is_file():
        msg = (
            f"{folder} has no export for {backend} with {precision}: run `haystack-distill export {folder} --backend "
            f"{backend} --precision {precision}`, or let `KaleAligner` make it (`export: [{name}]`)."
        )
        raise FileNotFoundError(msg)
    export = read_export(folder / name) if name in EXPORTS else None
    if has_graph and export:
        return graph_encoder(folder / name, export, threads)
    # Takes seconds to import, which the other backends save.
    from haystack_distill.serving.torch_encoder import torch_encoder

    return torch_encoder(folder, precision, device)


def _fastest(folder: Path, precision: str | None, threads: int, device: str | None) -> Encoder:
    """The quickest export whose vectors are on this machine what they were where it was made; else torch."""
    timed: dict[str, float] = {}
    loaded: dict[str, Encoder] = {}
    for name in exports_of(folder) if device in {None, "cpu"} else []:
        backend, of_export = split_name(name)
        row = BACKENDS[backend]
        if row.open_graph is None or precision not in {None, of_export}:
            continue
        if find_spec(row.package) is None:
            logger.warning("%s is left out: the package %s is not installed.", folder / name, row.package)
            continue
        export = read_export(folder / name)
        try:
            encoder = graph_encoder(folder / name, export, threads)
        except ImportError as error:  # it is installed, and lacks something of the system
            logger.warning("%s is left out: %s (%s).", folder / name, error, error.__cause__)
            continue
        if _passes(encoder, export, folder / name):
            timed[name], loaded[name] = _milliseconds(encoder, export.check_queries), encoder
    if not timed:
        chosen = export_name("torch", precision or "fp32")
        logger.info("%s is served by %s: no export beside it can be used here.", folder, chosen)
        return _named(folder, chosen, threads, device)
    best = min(timed, key=timed.__getitem__)
    figures = ", ".join(f"{name} {value:.2f} ms" for name, value in timed.items())
    logger.info("%s is served by %s, the fastest here (%s a query).", folder, best, figures)
    return loaded[best]


def _passes(encoder: Encoder, export: Export, folder: Path) -> bool:
    cosine = cosines(encoder.encode_batch(export.check_queries), check_vectors(folder)).mean()
    if cosine >= export.cosine - DRIFT:
        return True
    logger.warning(
        "%s is left out: on this machine its vectors differ from full precision (mean cosine %.4f, %.4f where it was "
        "exported).",
        folder,
        cosine,
        export.cosine,
    )
    return False


def _milliseconds(encoder: Encoder, queries: list[str]) -> float:
    """The median time to encode one query."""
    seconds = []
    for query in queries * ROUNDS:
        start = time.perf_counter()
        encoder.encode(query)
        seconds.append(time.perf_counter() - start)
    return float(np.median(seconds)) * 1000
