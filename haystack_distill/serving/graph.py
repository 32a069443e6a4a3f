# SPDX-FileCopyrightText: 2026-present haystack-distill contributors
#
# SPDX-License-Identifier: Apache-2.0

"""
Exported graphs on ONNX Runtime and OpenVINO.

A graph takes token ids `[batch, length]` and gives vectors `[batch, dim]`. It knows no padding: texts of one length
share a forward pass, so a vector does not depend on its neighbours, and single queries don't pay for masks.
"""

import os
import sys
import threading
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from tokenizers import Tokenizer

from haystack_distill.serving.encoder import Encoder
from haystack_distill.serving.exports import GRAPH, TOKENIZER, Export, export_name

Graph = Callable[[np.ndarray], np.ndarray]
MAX_BATCH = 64


def graph_encoder(folder: Path, export: Export, threads: int) -> Encoder:
    """
    Load an export of the `onnx` or `openvino` backend.

    :param folder: The folder of the export.
    :param export: What `read_export` read there.
    :param threads: Threads a query; one is fastest for the small encoders that this package makes.
    :returns: The encoder.
    :raises ImportError: If the backend's package is missing.
    :raises ValueError: If the backend can't run the graph.
    """
    open_graph = {"onnx": _onnx_graph, "openvino": _openvino_graph}[export.backend]
    return encoder_of(
        export_name(export.backend, export.precision),
        Tokenizer.from_file(str(folder / TOKENIZER)),
        export.prompt,
        open_graph(folder / GRAPH, threads),
        alone=export.precision == "int8",
    )


def encoder_of(name: str, tokenizer: Tokenizer, prompt: str, graph: Graph, *, alone: bool) -> Encoder:
    """
    Put a tokenizer before a graph.

    :param name: Backend and precision.
    :param tokenizer: Truncates, adds special tokens, does not pad.
    :param prompt: Put before every query.
    :param graph: Token ids -> vectors.
    :param alone: Whether queries of a batch are computed one by one: int8 activations share their scale with
        everything in the batch, which would change a query's vector with its neighbours.
    :returns: The encoder.
    """

    def encode(text: str) -> np.ndarray:
        return graph(np.array([tokenizer.encode(prompt + text).ids], dtype=np.int64))[0]

    def encode_batch(texts: list[str]) -> np.ndarray:
        by_length = defaultdict(list)
        ids = [encoding.ids for encoding in tokenizer.encode_batch([prompt + text for text in texts])]
        for row, tokens in enumerate(ids):
            by_length[len(tokens)].append(row)
        step = 1 if alone else MAX_BATCH
        groups = [rows[at : at + step] for rows in by_length.values() for at in range(0, len(rows), step)]
        found = [graph(np.array([ids[row] for row in rows], dtype=np.int64)) for rows in groups]
        vectors = np.empty((len(texts), found[0].shape[1]), dtype=np.float32)
        for rows, part in zip(groups, found, strict=True):
            vectors[rows] = part
        return vectors

    return Encoder(name, encode, encode_batch)


def _onnx_graph(file: Path, threads: int) -> Graph:
    # From 1.29 on it reports to its maker from a thread of its own, for which a forked child waits for ever as it ends.
    os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
    try:
        import onnxruntime
    except ImportError as error:
        msg = "The onnx backend needs ONNX Runtime: pip install 'haystack-distill[onnx]'"
        raise ImportError(msg) from error
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    try:
        session = onnxruntime.InferenceSession(str(file), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # its own exception types are not public
        raise ValueError(_cannot_run(file, f"ONNX Runtime {onnxruntime.__version__}", error)) from error
    run = session.run
    return lambda ids: run(None, {"input_ids": ids})[0]


def _import_openvino() -> Any:
    # Its first import reports to its maker from a forked copy of the process, unless this package is missing.
    reporter = "openvino_telemetry"
    hidden = reporter not in sys.modules
    if hidden:
        sys.modules[reporter] = None  # type: ignore[assignment]
    try:
        import openvino
    except ImportError as error:
        msg = "The openvino backend needs OpenVINO: pip install 'haystack-distill[openvino]'"
        raise ImportError(msg) from error
    finally:
        if hidden:
            del sys.modules[reporter]
    return openvino


def _openvino_graph(file: Path, threads: int) -> Graph:
    openvino = _import_openvino()
    core = openvino.Core()
    settings: dict[str, Any] = {
        "PERFORMANCE_HINT": "LATENCY",
        "INFERENCE_NUM_THREADS": threads,
        "NUM_STREAMS": 1,
        "INFERENCE_PRECISION_HINT": "f32",  # it would take bfloat16 by itself where the processor has it
    }
    try:
        compiled = core.compile_model(core.read_model(str(file)), "CPU", settings)
    except Exception as error:
        raise ValueError(_cannot_run(file, f"OpenVINO {openvino.__version__}", error)) from error
    local = threading.local()  # a request serves one caller at a time

    def run(ids: np.ndarray) -> np.ndarray:
        if getattr(local, "process", None) != os.getpid():
            local.request, local.process = compiled.create_infer_request(), os.getpid()
        # The request reuses its output, and this one is handed on.
        return local.request.infer([ids], share_inputs=True)[0].copy()

    return run


def _cannot_run(file: Path, runtime: str, error: Exception) -> str:
    reason = str(error).strip().splitlines()[0]
    return f"{runtime} can't run {file} ({reason}): update the package, or export again with the one installed here."
