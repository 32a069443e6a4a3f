"""
Where the microseconds of a query go, part by part, beside what the hardware needs at least.

    python -m benchmarks.serving_profile --data FOLDER [--json FILE] [--quick]

Uses the students of `benchmarks.serving` with ONNX Runtime at int8 and the token table, one thread. The floor of a
forward pass is the larger of two times: reading its int8 weights once from memory, and doing its multiply-adds at the
rate of a large int8 product on this machine.
"""

import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import onnx
import onnxruntime
import typer
from onnx import TensorProto, helper
from tokenizers import Tokenizer

from benchmarks.common import load_teacher, minilm, open_corpus, print_rows, write_rows
from benchmarks.serving import short_queries
from benchmarks.serving_parts import HOME, path_pipelines, prepared
from haystack_distill import KaleQueryEncoder
from haystack_distill.data.index import IndexView
from haystack_distill.evaluation.quality import latencies
from haystack_distill.serving.exports import GRAPH, TOKENIZER
from haystack_distill.serving.token_table import STATIC, module_folders

COLUMNS = (("encoder", "row", ""), ("part", "part", ""), ("microseconds", "us", ".1f"))


def main(
    data: Annotated[Path, typer.Option(help="The folder that holds the BEIR folders.")],
    json: Annotated[Path | None, typer.Option(help="Write the rows to this file.")] = None,
    quick: Annotated[bool, typer.Option(help="Briefly trained students and 5,000 vectors.")] = False,
) -> None:
    """Print the table."""
    teacher = load_teacher(minilm())
    corpus, index = open_corpus(data / HOME, teacher)
    models = prepared(data / HOME, teacher, index, quick=quick)
    queries = short_queries(teacher, corpus, 100)
    bandwidth, rate = _bytes_per_us(), _int8_multiply_adds_per_us()
    rows = [{"row": "machine", "part": "GB/s read from memory", "us": bandwidth / 1000}]
    rows.append({"row": "machine", "part": "billion int8 multiply-adds a second", "us": rate / 1000})
    for name in ("layers-2", "layers-1"):
        rows += encoder_parts(name, models[name], queries, bandwidth, rate)
    rows += table_parts(models["layers-0"], queries)
    rows += path_parts(models, index, queries, 5000 if quick else 100_000)
    rows += [start_of("onnx-int8", models["layers-2"] / "onnx-int8"), start_of("token table", models["layers-0"])]
    write_rows(json, rows)
    print_rows(rows, COLUMNS, "One query of 8 to 16 tokens, one thread, medians")


def encoder_parts(name: str, model: Path, queries: list[str], bandwidth: float, rate: float) -> list[dict[str, Any]]:
    """Tokeniser, graph, and what is around them; pooling and normalisation are in the graph."""
    folder = model / "onnx-int8"
    tokenizer = Tokenizer.from_file(str(folder / TOKENIZER))
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(str(folder / GRAPH), options, providers=["CPUExecutionProvider"])
    ids = {query: np.array([tokenizer.encode(query).ids]) for query in queries}
    vector = session.run(None, {"input_ids": ids[queries[0]]})[0][0]
    encoder = KaleQueryEncoder(str(model), backend="onnx", precision="int8")
    parts = _medians(
        {
            "tokenise": lambda query: tokenizer.encode(query).ids,
            "forward, pool, normalise": lambda query: session.run(None, {"input_ids": ids[query]}),
            "vector to list": lambda _: vector.tolist(),
            "whole component": lambda query: encoder.run(text=query),
        },
        queries,
    )
    weights = sum(np.prod(one.dims) for one in onnx.load(folder / GRAPH).graph.initializer if one.data_type == 3)
    tokens = float(np.median([one.shape[1] for one in ids.values()]))
    parts["floor: weights read once"] = float(weights) / bandwidth
    parts["floor: multiply-adds"] = float(weights) * tokens / rate
    return [{"row": name, "part": part, "us": us} for part, us in parts.items()]


def table_parts(model: Path, queries: list[str]) -> list[dict[str, Any]]:
    """The same for the table."""
    encoder = KaleQueryEncoder(str(model))
    tokenizer = Tokenizer.from_file(str(module_folders(model)[STATIC] / TOKENIZER))
    vector = np.array(encoder.run(text=queries[0])["embedding"], dtype=np.float32)
    parts = _medians(
        {
            "tokenise": lambda query: tokenizer.encode(query, add_special_tokens=False).ids,
            "vector to list": lambda _: vector.tolist(),
            "whole component": lambda query: encoder.run(text=query),
        },
        queries,
    )
    rest = parts["whole component"] - parts["tokenise"] - parts["vector to list"]
    parts = {"tokenise": parts["tokenise"], "sum of rows, length 1": rest, **parts}
    return [{"row": "layers-0", "part": part, "us": us} for part, us in parts.items()]


def path_parts(models: dict[str, Path], index: IndexView, queries: list[str], vectors: int) -> list[dict[str, Any]]:
    """What the store and Haystack take after the table: FAISS HNSW."""
    asked = path_pipelines(models, index, ("onnx", "int8"), vectors, ("faiss-hnsw",))["faiss-hnsw"]["layers-0"]
    retriever = asked.retriever
    vector = {query: retriever.query_encoder.run(text=query)["embedding"] for query in queries}
    search = retriever.retriever
    native = search.document_store.index
    as_array = {query: np.array([one], dtype=np.float32) for query, one in vector.items()}
    parts = _medians(
        {
            "FAISS alone": lambda query: native.search(as_array[query], 10),
            "its retriever": lambda query: search.run(query_embedding=vector[query]),
            "DistilledRetriever, table": lambda query: retriever.run(query=query),
            "pipeline, table": asked.ask,
            "table alone": lambda query: retriever.query_encoder.run(text=query),
        },
        queries,
    )
    parts["DistilledRetriever adds"] = (
        parts["DistilledRetriever, table"] - parts["its retriever"] - parts["table alone"]
    )
    return [{"row": f"path, {vectors:,} vectors", "part": part, "us": us} for part, us in parts.items()]


def start_of(name: str, model: Path) -> dict[str, Any]:
    """A fresh process until its first vector, without Haystack."""
    code = (
        "from haystack_distill.serving.opening import open_encoder\n"
        f"open_encoder({str(model.resolve())!r}).encode('who discovered the moon')\n"
    )
    seconds = []
    for _ in range(5):
        start = time.perf_counter()
        subprocess.run([sys.executable, "-c", code], check=True)
        seconds.append(time.perf_counter() - start)
    return {"row": "fresh process", "part": f"until its first vector, {name}", "us": 1e6 * float(np.median(seconds))}


def _medians(parts: dict[str, Callable[[str], Any]], queries: list[str]) -> dict[str, float]:
    return {name: 1000 * float(np.median(times)) for name, times in latencies(parts, queries, rounds=10).items()}


def _bytes_per_us() -> float:
    """How fast one core reads memory that no cache holds."""
    block = np.ones(64 * 2**20, dtype=np.float32)
    block.sum()
    seconds = []
    for _ in range(10):
        start = time.perf_counter()
        np.max(block)
        seconds.append(time.perf_counter() - start)
    return block.nbytes / min(seconds) / 1e6


def _int8_multiply_adds_per_us() -> float:
    """The rate of ONNX Runtime's own int8 product where nothing else limits it."""
    size = 1024
    node = helper.make_node("MatMulInteger", ["a", "b"], ["c"])
    graph = helper.make_graph(
        [node],
        "product",
        [helper.make_tensor_value_info("a", TensorProto.UINT8, [size, size])],
        [helper.make_tensor_value_info("c", TensorProto.INT32, [size, size])],
        [helper.make_tensor("b", TensorProto.INT8, [size, size], np.ones(size * size, np.int8).tobytes(), raw=True)],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    left = np.ones((size, size), np.uint8)
    seconds = []
    for _ in range(20):
        start = time.perf_counter()
        session.run(None, {"a": left})
        seconds.append(time.perf_counter() - start)
    return size**3 / min(seconds) / 1e6


if __name__ == "__main__":
    typer.run(main)
