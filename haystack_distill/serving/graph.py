"""
Exported graphs on the runtime they were exported for.

A graph takes token ids `[batch, length]` and gives vectors `[batch, dim]`. It knows no padding: texts of one length
share a forward pass, so a vector does not depend on its neighbours, and single queries don't pay for masks.
"""

import sys
from collections import defaultdict
from pathlib import Path

import numpy as np
from tokenizers import Tokenizer

from haystack_distill.serving.backends import BACKENDS, Backend, Graph, export_name
from haystack_distill.serving.encoder import WINDOW, Encoder
from haystack_distill.serving.exports import GRAPH, TOKENIZER, Export

MAX_BATCH = 64


def graph_encoder(folder: Path, export: Export, threads: int) -> Encoder:
    """
    Load an exported graph with its tokenizer.

    :param export: What `read_export` read there.
    :param threads: Threads a query; one is fastest for the small encoders that this package makes.
    :raises ImportError: If the backend's package is missing.
    :raises ValueError: If the backend can't run the graph.
    """
    graph = _open(BACKENDS[export.backend], folder / GRAPH, threads)
    tokenizer = Tokenizer.from_file(str(folder / TOKENIZER))  # truncates, adds special tokens, does not pad
    # int8 activations share their scale with everything in the batch, which would change a vector with its neighbours.
    step = 1 if export.precision == "int8" else MAX_BATCH

    def encode(text: str) -> np.ndarray:
        return graph(np.array([tokenizer.encode(export.prompt + text).ids], dtype=np.int64))[0]

    def encode_batch(texts: list[str]) -> np.ndarray:
        by_length = defaultdict(list)
        ids = [encoding.ids for encoding in tokenizer.encode_batch([export.prompt + text for text in texts])]
        for row, tokens in enumerate(ids):
            by_length[len(tokens)].append(row)
        groups = [rows[at : at + step] for rows in by_length.values() for at in range(0, len(rows), step)]
        parts = [graph(np.array([ids[row] for row in rows], dtype=np.int64)) for rows in groups]
        vectors = np.empty((len(texts), parts[0].shape[1]), dtype=np.float32)
        for rows, part in zip(groups, parts, strict=True):
            vectors[rows] = part
        return vectors

    window = (tokenizer.truncation or {}).get("max_length", WINDOW)
    return Encoder(export_name(export.backend, export.precision), encode, encode_batch, window)


def _open(backend: Backend, file: Path, threads: int) -> Graph:
    assert backend.open_graph is not None
    try:
        return backend.open_graph(file, threads)
    except ImportError as error:
        msg = f"The {backend.name} backend needs {backend.runtime}: pip install 'haystack-distill[{backend.name}]'"
        raise ImportError(msg) from error
    except Exception as error:  # the runtimes' own exception types are not public
        version = getattr(sys.modules.get(backend.package), "__version__", "")
        reason = str(error).strip().partition("\n")[0]
        msg = (
            f"{backend.runtime} {version} can't run {file} ({reason}): update the package, or export again with the "
            "one installed here."
        )
        raise ValueError(msg) from error
