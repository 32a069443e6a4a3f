"""
How long a reply takes, one dialogue at a time, one thread: retrieved, and written by the generator on its fastest.

Retrieved: encoding the dialogue, and HNSW over the response set (the authors' HNSW32) with the lowest `efSearch` at
which each encoder finds 98 % of its own exact first ten. Encoders run as `KaleQueryEncoder` serves them: six layers
and two on ONNX at full precision, a token table on numpy. Written: by transformers in the precision of the benchmark,
and by llama.cpp (package xllamacpp) where the generator is a GGUF file; `speedup` is over the faster of the two.
"""

from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import faiss
import numpy as np
import torch
from sentence_transformers import SentenceTransformer
from threadpoolctl import threadpool_limits

from benchmarks.g2r_systems import SAMPLING, STUDENTS, UNTOUCHED, Bench, encode
from demo.packaged import llama_cpp
from haystack_distill.data.dialogues import Context, format_context
from haystack_distill.evaluation.dev_set import dev_set_of_texts
from haystack_distill.evaluation.quality import latencies
from haystack_distill.generation.local import LocalGenerator, Sampling
from haystack_distill.generation.requests import Request
from haystack_distill.serving.export import export
from haystack_distill.serving.opening import open_encoder
from haystack_distill.serving.token_table import is_table
from haystack_distill.students.bi_encoder import BiEncoder

RECOVERED, EFFORTS = 0.98, (16, 32, 64, 128, 256, 512, 1024)


def add_latencies(bench: Bench, rows: list[dict[str, Any]]) -> None:
    """Add times to the rows of retrievers. All systems of one size are the same network, so one stands for all."""
    torch.set_num_threads(1)
    with threadpool_limits(1):
        networks = {UNTOUCHED, *(row["system"] for row in rows if row["system"] in STUDENTS)}
        finders = {name: _finder(bench, name) for name in sorted(networks)}
        writers = _writers(bench)
        asked = {format_context(one.turns, bench.sizes.history): one for one in bench.test[: bench.sizes.timed]}
        ways: dict[str, Callable[[str], Any]] = {name: find for name, (find, _) in finders.items()}
        ways |= {name: (lambda query, write=write: write(asked[query])) for name, write in writers.items()}
        median = {name: float(np.median(times)) for name, times in latencies(ways, list(asked), 1, 1).items()}
    runtime = min(writers, key=median.__getitem__)
    for row in rows:
        network = row["system"] if row["system"] in STUDENTS else UNTOUCHED
        row |= {
            "ms": median[network],
            "ef": finders[network][1],
            "generator_ms": median[runtime],
            "runtime": runtime,
            "speedup": median[runtime] / median[network],
            **{f"{name}_ms": median[name] for name in writers},
        }


def _finder(bench: Bench, system: str) -> tuple[Callable[[str], str], int]:
    """How a reply is found, and with which effort."""
    queries_of, responses_of = bench.encoders(system)
    vectors, pool = bench.vectors(responses_of), bench.pool()
    index = faiss.IndexHNSWFlat(vectors.shape[1], 32, faiss.METRIC_INNER_PRODUCT)
    index.add(vectors)
    contexts = [format_context(one.turns, bench.sizes.history) for one in bench.test]
    effort = _effort(index, vectors, encode(SentenceTransformer(str(queries_of), device="cpu"), contexts))
    index.hnsw.efSearch = effort
    served = open_encoder(_exported(bench, queries_of), "onnx")
    return lambda query: pool[int(index.search(served.encode_batch([query]), 1)[1][0, 0])], effort


def _effort(index: Any, vectors: np.ndarray, queries: np.ndarray) -> int:
    """The lowest `efSearch` at which enough of the exact first ten are found."""
    exact = faiss.IndexFlatIP(vectors.shape[1])
    exact.add(vectors)
    wanted = exact.search(queries, 10)[1]
    for effort in EFFORTS:
        index.hnsw.efSearch = effort
        found = index.search(queries, 10)[1]
        if np.mean([len(set(one) & set(other)) / 10 for one, other in zip(found, wanted, strict=True)]) >= RECOVERED:
            return effort
    return EFFORTS[-1]


def _exported(bench: Bench, model: Path) -> Path:
    if is_table(model):
        return model
    folder = bench.work / f"served-{model.name}"
    if not (folder / "onnx-fp32").exists():
        SentenceTransformer(str(model), device="cpu").save(str(folder), create_model_card=False)
        export(folder, "onnx", "fp32", dev_set_of_texts(bench.pool(), BiEncoder.load(str(folder), device="cpu")))
    return folder


def _writers(bench: Bench) -> dict[str, Callable[[Context], Any]]:
    """How the generator writes: runtime -> a reply to a context."""
    tokens = bench.sizes.new_tokens
    sampling = Sampling(max_new_tokens=tokens, **SAMPLING)  # type: ignore[arg-type]
    local = LocalGenerator(bench.reader, Path(bench.generator).name, sampling, batch_size=1)
    writers: dict[str, Callable[[Context], Any]] = {
        "transformers": lambda context: list(local.work([_request(context)], set()))
    }
    if bench.generator.endswith(".gguf") and find_spec("xllamacpp"):
        server = llama_cpp(bench.generator, threads=1)

        def write(context: Context) -> Any:
            messages = [{"role": role, "content": text} for role, text in _request(context).messages]
            return server.handle_chat_completions({"messages": messages, "max_tokens": tokens, **SAMPLING})

        writers["llama.cpp"] = write
    return writers


def _request(context: Context) -> Request:
    return Request(context.id, tuple(context.turns), (0,), cue="B:")
