# SPDX-FileCopyrightText: 2026-present haystack-distill contributors
#
# SPDX-License-Identifier: Apache-2.0

"""What a query goes through when it is served: text in, vector out. Nothing here needs torch but `torch_encoder`."""

import ctypes
import sys
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Encoder:
    """
    A query encoder, loaded and ready. Both functions may be called from several threads at once.

    :param name: Its backend and precision, as in `onnx-int8`.
    :param encode: One query -> its vector, `[dim]`, float32.
    :param encode_batch: Queries -> their vectors, `[queries, dim]`, float32, each as `encode` makes it.
    """

    name: str
    encode: Callable[[str], np.ndarray]
    encode_batch: Callable[[list[str]], np.ndarray]


def abandon(encoder: Encoder) -> None:
    """
    Keep an encoder that came through a fork from ever being taken down, not even when the process ends.

    The threads of its runtime stayed with the parent, and taking it down would wait for them for ever. So would torch
    at its next operation on several threads: where it is loaded, it goes on with one.

    :param encoder: The parent's encoder, in the child.
    """
    if "torch" in sys.modules:
        sys.modules["torch"].set_num_threads(1)
    ctypes.pythonapi.Py_IncRef(ctypes.py_object(encoder))
