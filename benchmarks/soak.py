"""
Many queries, one after the other: does a retriever keep anything of them?

    pip install 'haystack-distill[bench]' && pip install --no-deps faiss-haystack
    python -m benchmarks.soak --data BEIR_FOLDER [--queries 200000] [--json FILE] [--quick]

One `DistilledRetriever` over FAISS for each backend, two layers cut out of the encoder or its token table, untrained:
memory does not depend on how good they are. Every query has other words. Memory of the process is read a hundred times;
the first fifth, in which runtimes fill their pools, does not count for the slope.
"""

import random
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import psutil
import typer
from haystack import Document
from haystack_integrations.components.retrievers.faiss import FAISSEmbeddingRetriever
from haystack_integrations.document_stores.faiss import FAISSDocumentStore

from benchmarks.common import CachedTeacher, load_teacher, minilm, open_corpus, print_rows, read_rows, write_rows
from benchmarks.stores import own_memory
from haystack_distill import DistilledRetriever, KaleQueryEncoder
from haystack_distill.evaluation.dev_set import dev_set_of_texts
from haystack_distill.serving.backends import split_name
from haystack_distill.serving.export import export
from haystack_distill.students.cutting import cut
from haystack_distill.students.token_table import make_token_table

READINGS, SETTLING = 100, 20
BACKENDS = ("table", "torch-fp32", "onnx-fp32", "onnx-int8", "openvino-fp32")
COLUMNS = (
    ("backend", "backend", ""),
    ("queries", "queries", "d"),
    ("a second", "per_second", ".0f"),
    ("MiB after a fifth", "settled_mib", ".0f"),
    ("MiB at the end", "end_mib", ".0f"),
    ("bytes a query", "bytes_a_query", ".1f"),
    ("files more", "files_more", "d"),
)


def main(
    data: Annotated[Path, typer.Option(help="A BEIR folder.")],
    queries: Annotated[int, typer.Option(help="How many for each backend.")] = 200_000,
    backend: Annotated[list[str] | None, typer.Option(help="Only these.")] = None,
    encoder: Annotated[str | None, typer.Option(help="A sentence-transformers folder; default: MiniLM.")] = None,
    json: Annotated[Path | None, typer.Option(help="Write the rows to this file.")] = None,
    quick: Annotated[bool, typer.Option(help="A thousand queries each.")] = False,
) -> None:
    """Print the table."""
    rows = read_rows(json)
    teacher = load_teacher(encoder or minilm())
    corpus, index = open_corpus(data, teacher)
    texts = list(corpus.documents.values())
    store = FAISSDocumentStore(embedding_dim=index.vectors.shape[1])
    store.write_documents(
        [
            Document(id=key, content=text, embedding=vector.tolist())
            for key, text, vector in zip(index.ids, texts, index.vectors, strict=True)
        ]
    )
    with tempfile.TemporaryDirectory() as folder:
        for name in backend or BACKENDS:
            if any(row["backend"] == name for row in rows):
                continue
            served = _encoder(name, teacher, texts, Path(folder))
            retriever = DistilledRetriever(
                query_encoder=served, retriever=FAISSEmbeddingRetriever(document_store=store), top_k=10
            )
            rows.append({"backend": name, **soaked(retriever, texts, 1000 if quick else queries)})
            write_rows(json, rows)
    print_rows(rows, COLUMNS, "Memory of the process while queries come in")


def _encoder(name: str, teacher: CachedTeacher, texts: list[str], place: Path) -> KaleQueryEncoder:
    """The encoder of a backend; those with layers share one student."""
    folder = place / ("table" if name == "table" else "layers")
    if not folder.exists():
        student = make_token_table(teacher) if name == "table" else cut(teacher, (0, 1))
        student.save(str(folder), create_model_card=False)
    if name == "table":
        return KaleQueryEncoder(str(folder))
    backend, precision = split_name(name)
    if backend != "torch":
        export(folder, backend, precision, dev_set_of_texts(texts, teacher))
    return KaleQueryEncoder(str(folder), backend=backend, precision=precision)


def soaked(retriever: DistilledRetriever, texts: list[str], queries: int) -> dict[str, Any]:
    """
    Ask, and read the memory of this process a hundred times.

    :returns: `queries`, `per_second`, `settled_mib` and `end_mib` (resident, without pages of files), `bytes_a_query`
        (the slope of least squares after the first fifth), `files_more` (open files at the end minus those then).
    """
    asked = _queries(texts)
    process = psutil.Process()
    memory, files = [], []
    start = time.perf_counter()
    for _ in range(READINGS):
        for _ in range(queries // READINGS):
            assert len(retriever.run(query=next(asked))["documents"]) == 10
        memory.append(own_memory())
        files.append(process.num_fds())
    seconds = time.perf_counter() - start
    steps = np.arange(SETTLING, READINGS) * (queries // READINGS)
    slope = np.polyfit(steps, np.array(memory[SETTLING:]) * 2**20, 1)[0]
    return {
        "queries": queries,
        "per_second": queries / seconds,
        "settled_mib": memory[SETTLING],
        "end_mib": memory[-1],
        "bytes_a_query": float(slope),
        "files_more": files[-1] - files[SETTLING],
    }


def _queries(texts: list[str]) -> Iterator[str]:
    """Words of the documents, at random, so that hardly a query comes twice."""
    words = sorted({word for text in texts for word in text.split()})
    chance = random.Random(0)
    while True:
        yield " ".join(chance.choices(words, k=chance.randint(4, 16)))


if __name__ == "__main__":
    typer.run(main)
