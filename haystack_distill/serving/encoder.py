"""What a query goes through when it is served: text in, vector out. Nothing here needs torch but `torch_encoder`."""

import ctypes
import sys
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

WINDOW = 512
"""The window, in tokens, of a model that names none."""

LETTERS_A_TOKEN = 32
"""
A query is cut to so many letters for each token of the model's window before it is tokenised, which takes seconds for
megabytes. The window is full by then, unless the query is made of blanks or of words that no tokenizer knows.
"""


@dataclass(frozen=True)
class Encoder:
    """
    A query encoder, loaded and ready. Both functions may be called from several threads at once.

    :param name: Its backend and precision, as in `onnx-int8`.
    :param encode: One query -> its vector, `[dim]`, float32.
    :param encode_batch: Queries -> their vectors, `[queries, dim]`, float32, each as `encode` makes it.
    :param window: How many tokens of a query the model reads.
    """

    name: str
    encode: Callable[[str], np.ndarray]
    encode_batch: Callable[[list[str]], np.ndarray]
    window: int = WINDOW


def forgiving(encoder: Encoder) -> Encoder:
    """
    Let an encoder take any string: a long one is cut, and half an emoji (a lone surrogate) becomes U+FFFD.

    JSON has such halves where a client cut a text between the two; no tokenizer takes them.
    """
    encode, encode_batch, most = encoder.encode, encoder.encode_batch, LETTERS_A_TOKEN * encoder.window

    def readable(text: str) -> str:
        text = text[:most]
        try:
            text.encode()
        except UnicodeEncodeError:
            return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
        return text

    return replace(
        encoder,
        encode=lambda text: encode(readable(text)),
        encode_batch=lambda texts: encode_batch([readable(text) for text in texts]),
    )


def abandon(encoder: Encoder) -> None:
    """
    Keep the parent's encoder from ever being taken down in a child that came of a fork, not even when the child ends.

    The threads of its runtime stayed with the parent, and taking it down would wait for them for ever. So would torch
    at its next operation on several threads: where it is loaded, it goes on with one.
    """
    if "torch" in sys.modules:
        sys.modules["torch"].set_num_threads(1)
    ctypes.pythonapi.Py_IncRef(ctypes.py_object(encoder))
