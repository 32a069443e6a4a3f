# SPDX-FileCopyrightText: 2026-present haystack-distill contributors
#
# SPDX-License-Identifier: Apache-2.0

"""
int8 weights in an exported graph, one scale for each output channel; activations get theirs as they come.

Calibrated (static) activations were slower on OpenVINO's and no faster on ONNX Runtime's int8 kernels and lost more of
the vectors: docs/decisions/0002-serving.md.
"""

import logging
from pathlib import Path

import numpy as np

RANGE = 127


def quantize(graph: Path, backend: str) -> None:
    """
    Quantise the constant matrices of a graph, in place.

    :param graph: The ONNX file.
    :param backend: `onnx` or `openvino`: which runtime's int8 kernels it is for.
    """
    {"onnx": _for_onnxruntime, "openvino": _for_openvino}[backend](graph)


def _for_onnxruntime(graph: Path) -> None:
    """Integer products with activations quantised on the fly."""
    from onnxruntime.quantization import QuantType, quantize_dynamic

    quiet = logging.root.manager.disable
    logging.disable(logging.WARNING)  # it logs a line for every tensor, to the root logger
    try:
        quantize_dynamic(
            str(graph),
            str(graph),
            per_channel=True,
            weight_type=QuantType.QInt8,
            op_types_to_quantize=["MatMul"],
            extra_options={"MatMulConstBOnly": True},
        )
    finally:
        logging.disable(quiet)


def _for_openvino(graph: Path) -> None:
    """Constant matrices become int8 with a dequantisation, which OpenVINO folds into its own int8 products."""
    import onnx
    from onnx import helper, numpy_helper

    model = onnx.load(str(graph))
    constants = {tensor.name: tensor for tensor in model.graph.initializer}
    products = [node for node in model.graph.node if node.op_type == "MatMul" and node.input[1] in constants]
    for name in dict.fromkeys(node.input[1] for node in products):
        tensor = constants[name]
        weight = numpy_helper.to_array(tensor)
        scale = np.maximum(np.abs(weight).max(axis=0), np.finfo(np.float32).tiny) / RANGE
        integers = np.clip(np.round(weight / scale), -RANGE, RANGE).astype(np.int8)
        parts = {"int8": integers, "scale": scale.astype(np.float32), "zero": np.zeros(len(scale), np.int8)}
        inputs = [f"{name}_{part}" for part in parts]
        model.graph.initializer.extend(map(numpy_helper.from_array, parts.values(), inputs))
        model.graph.initializer.remove(tensor)
        # The product keeps its input's name, which the dequantisation now gives.
        model.graph.node.insert(0, helper.make_node("DequantizeLinear", inputs, [name], axis=1))
    onnx.save(model, str(graph))
