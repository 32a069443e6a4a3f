"""
The runtimes that serve query encoders, one row each: opening, exporting, messages and the docs' table follow the rows.

A row is read without its runtime: every package is imported in the function that uses it. int8 weights have one scale
for each output channel, and activations get theirs as they come: calibrated (static) activations were slower on
OpenVINO's kernels, no faster on ONNX Runtime's, and lost more of the vectors (docs/decisions/0002-serving.md).
"""

import logging
import os
import sys
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np

Graph = Callable[["np.ndarray"], "np.ndarray"]
"""Token ids `[batch, length]` of texts of one length -> vectors `[batch, dim]`."""


@dataclass(frozen=True)
class Backend:
    """
    A runtime.

    :param name: What `backend` calls it. The extra that installs it has the same name.
    :param package: What is imported to serve with it; empty where this package's own requirements are enough.
    :param how: How a query gets to its vector, for the docs' table.
    :param open_graph: Loads an exported ONNX graph, for a number of threads; None serves the student's own folder.
    :param quantize: Makes an exported graph int8, in place; None quantises as the student is loaded.
    """

    name: str
    runtime: str
    package: str
    how: str
    precisions: tuple[str, ...] = ("fp32", "int8")
    open_graph: Callable[[Path, int], Graph] | None = None
    quantize: Callable[[Path], None] | None = None

    @property
    def makers(self) -> tuple[str, ...]:
        """The packages, beside torch, that an export is made and checked with."""
        return ("onnx", self.package) if self.open_graph else ()

    @property
    def names(self) -> list[str]:
        """Backend and precision of each way to serve with it, as in `onnx-int8`."""
        return [f"{self.name}-{precision}" for precision in self.precisions]


def _open_onnx(file: Path, threads: int) -> Graph:
    # From 1.29 on it reports to its maker from a thread of its own, for which a forked child waits for ever as it ends.
    os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    run = onnxruntime.InferenceSession(str(file), options, providers=["CPUExecutionProvider"]).run
    return lambda ids: run(None, {"input_ids": ids})[0]


def _quantize_onnx(file: Path) -> None:
    """Integer products with activations quantised on the fly."""
    from onnxruntime.quantization import QuantType, quantize_dynamic

    quiet = logging.root.manager.disable
    logging.disable(logging.WARNING)  # it logs a line for every tensor, to the root logger
    try:
        quantize_dynamic(
            str(file),
            str(file),
            per_channel=True,
            weight_type=QuantType.QInt8,
            op_types_to_quantize=["MatMul"],
            extra_options={"MatMulConstBOnly": True},
        )
    finally:
        logging.disable(quiet)


def _open_openvino(file: Path, threads: int) -> Graph:
    openvino = _import_openvino()
    core = openvino.Core()
    settings: dict[str, Any] = {
        "PERFORMANCE_HINT": "LATENCY",
        "INFERENCE_NUM_THREADS": threads,
        "NUM_STREAMS": 1,
        "INFERENCE_PRECISION_HINT": "f32",  # it would take bfloat16 by itself where the processor has it
    }
    compiled = core.compile_model(core.read_model(str(file)), "CPU", settings)
    local = threading.local()  # a request serves one caller at a time

    def run(ids: "np.ndarray") -> "np.ndarray":
        if getattr(local, "process", None) != os.getpid():
            local.request, local.process = compiled.create_infer_request(), os.getpid()
        # The request reuses its output, and this one is handed on.
        return local.request.infer([ids], share_inputs=True)[0].copy()

    return run


def _import_openvino() -> Any:
    # Its first import reports to its maker from a forked copy of the process, unless this package is missing.
    reporter = "openvino_telemetry"
    hidden = reporter not in sys.modules
    if hidden:
        sys.modules[reporter] = None  # type: ignore[assignment]
    try:
        import openvino
    finally:
        if hidden:
            del sys.modules[reporter]
    return openvino


def _quantize_openvino(file: Path) -> None:
    """Constant matrices become int8 with a dequantisation, which OpenVINO folds into its own int8 products."""
    import numpy as np
    import onnx
    from onnx import helper, numpy_helper

    model = onnx.load(str(file))
    constants = {tensor.name: tensor for tensor in model.graph.initializer}
    products = [node for node in model.graph.node if node.op_type == "MatMul" and node.input[1] in constants]
    largest = 127
    for name in dict.fromkeys(node.input[1] for node in products):
        tensor = constants[name]
        weight = numpy_helper.to_array(tensor)
        scale = np.maximum(np.abs(weight).max(axis=0), np.finfo(np.float32).tiny) / largest
        integers = np.clip(np.round(weight / scale), -largest, largest).astype(np.int8)
        parts = {"int8": integers, "scale": scale.astype(np.float32), "zero": np.zeros(len(scale), np.int8)}
        inputs = [f"{name}_{part}" for part in parts]
        model.graph.initializer.extend(map(numpy_helper.from_array, parts.values(), inputs))
        model.graph.initializer.remove(tensor)
        # The product keeps its input's name, which the dequantisation now gives.
        model.graph.node.insert(0, helper.make_node("DequantizeLinear", inputs, [name], axis=1))
    onnx.save(model, str(file))


BACKENDS = {
    backend.name: backend
    for backend in (
        Backend(
            "onnx",
            "ONNX Runtime",
            "onnxruntime",
            "an exported graph, pooling and normalisation in it",
            open_graph=_open_onnx,
            quantize=_quantize_onnx,
        ),
        Backend(
            "openvino",
            "OpenVINO",
            "openvino",
            "the same graph on OpenVINO",
            open_graph=_open_openvino,
            quantize=_quantize_openvino,
        ),
        Backend("torch", "PyTorch", "", "the student itself, on any device; int8 quantises it on loading, on the CPU"),
    )
}
"""What `backend` may name. `auto` takes the fastest of those with a graph, and else torch, the slowest to load."""

TABLE = Backend("table", "numpy", "", "the rows of the query's tokens, added up with numpy", precisions=("fp32",))
"""How a token table is served, whatever backend is named."""

EXPORTS = [name for backend in BACKENDS.values() for name in backend.names if name != "torch-fp32"]
"""What can be exported; torch at fp32 is the student itself."""


def export_name(backend: str, precision: str) -> str:
    """Name a way to serve, and the folder of its export, as in `onnx-int8`; a ValueError if there is no such way."""
    if backend not in BACKENDS or precision not in BACKENDS[backend].precisions:
        known = ", ".join(name for row in BACKENDS.values() for name in row.names)
        msg = f"There is no backend {backend!r} with precision {precision!r}: choose one of {known}."
        raise ValueError(msg)
    return f"{backend}-{precision}"


def split_name(name: str) -> tuple[str, str]:
    """Take a name such as `onnx-int8` apart, into backend and precision; a ValueError if it names none."""
    backend, _, precision = name.partition("-")
    export_name(backend, precision)
    return backend, precision
