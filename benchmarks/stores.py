"""
What an index costs as it grows: reading its view, aligning a student on it, and serving a query.

    python -m benchmarks.stores [--json FILE] [--quick] [--store NAME] [--size N]

The vectors are those of Python's own documentation, embedded by the packaged MiniLM and perturbed (cosine about 0.995)
until there are enough. Each row runs in a process of its own. Memory is the process's own (resident and not shared
with files), above what it was before, and `peak_mib` in all: the store's part of it, where the store lives in the
process, and Python with its models included. PostgreSQL and the Milvus server are processes apart. Queries go through
a token table, which takes a fraction of a millisecond: what is left is the store's time.
"""

import json as json_format
import os
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from importlib import metadata
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import psutil
import typer
from haystack import Document
from haystack.document_stores.types import DuplicatePolicy

from benchmarks.common import CACHE, load_teacher, minilm, print_rows, read_rows, write_rows
from demo.corpus import python_documentation
from haystack_distill import DistilledRetriever, KaleQueryEncoder
from haystack_distill.align.job import align
from haystack_distill.align.settings import KaleSettings
from haystack_distill.align.training import TrainingSettings
from haystack_distill.files.folders import published
from haystack_distill.students.token_table import make_token_table
from haystack_integrations.components.distill.stores import EmbedderSettings, index_of

SIZES = {
    "faiss": (10_000, 100_000, 1_000_000),
    "qdrant": (10_000, 100_000, 1_000_000),
    "pgvector": (10_000, 100_000),
    "chroma": (10_000, 100_000),
    "milvus": (10_000, 100_000),
    "milvus_server": (10_000, 100_000, 1_000_000),
    "in_memory": (10_000, 100_000),
}
PACKAGES = {
    "faiss": "faiss-haystack",
    "qdrant": "qdrant-haystack",
    "pgvector": "pgvector-haystack",
    "chroma": "chroma-haystack",
    "milvus": "milvus-haystack",
    "milvus_server": "milvus-haystack",
    "in_memory": "haystack-ai",
}
COLUMNS = (
    ("store", "store", ""),
    ("version", "version", ""),
    ("vectors", "n", ",d"),
    ("fill s", "fill_seconds", ".0f"),
    ("view s", "view_seconds", ".1f"),
    ("view MiB", "view_mib", ".0f"),
    ("align s", "align_seconds", ".0f"),
    ("align MiB", "align_mib", ".0f"),
    ("ms a query", "query_ms", ".1f"),
    ("peak MiB", "peak_mib", ".0f"),
)
TABLE = CACHE / "minilm-token-table"
ALIGNED = ("faiss", "qdrant")
"""An alignment knows only the view: two stores that share their process with it show what it needs."""

DIM, NOISE, BATCH = 384, 0.1, 1000


def main(
    json: Annotated[Path | None, typer.Option(help="Write the rows to this file; its rows are not run again.")] = None,
    quick: Annotated[bool, typer.Option(help="2,000 vectors in each store.")] = False,
    store: Annotated[list[str] | None, typer.Option(help=f"Of {', '.join(SIZES)}.")] = None,
    size: Annotated[list[int] | None, typer.Option(help="How many vectors.")] = None,
    one: Annotated[str | None, typer.Option(hidden=True)] = None,
) -> None:
    """Print the table."""
    if one is not None:
        name, number = one.split(":")
        print(json_format.dumps(measure(name, int(number))))
        return
    rows = [row for row in read_rows(json) if "failed" not in row]
    done = {(row["store"], row["n"]) for row in rows}
    for name in store or SIZES:
        for number in size or ((2_000,) if quick else SIZES[name]):
            if (name, number) not in done:
                rows.append(in_a_process(name, number))
                write_rows(json, rows)
                print_rows(rows[-1:], COLUMNS, "")
    print_rows(rows, COLUMNS, "Stores as they grow, 384 dimensions")


def in_a_process(name: str, number: int) -> dict[str, Any]:
    """Measure a row where no other row left anything in memory."""
    command = [sys.executable, "-m", "benchmarks.stores", "--one", f"{name}:{number}"]
    done = subprocess.run(command, check=False, stdout=subprocess.PIPE, text=True)
    if done.returncode:
        return {"store": name, "version": metadata.version(PACKAGES[name]), "n": number, "failed": done.returncode}
    row: dict[str, Any] = json_format.loads(done.stdout.splitlines()[-1])
    return row


def measure(name: str, number: int) -> dict[str, Any]:
    """Fill a store, read it, align on what was read, and serve from it."""
    work = Path(tempfile.mkdtemp(prefix="stores-", dir=os.environ.get("TMPDIR")))
    row: dict[str, Any] = {"store": name, "version": metadata.version(PACKAGES[name]), "n": number}
    texts, vectors = perturbed(number, work)
    store, retriever, close = OPEN[name](work)
    try:
        with watched(row, "fill"):
            fill(name, store, texts, vectors)
        with watched(row, "view"):
            view = index_of(store, EmbedderSettings(minilm()), work / "view", max_documents=100_000)
        row["held"] = len(view)
        teacher = load_teacher(minilm())
        if not TABLE.exists():
            with published(TABLE) as folder:
                make_token_table(teacher).save(str(folder), create_model_card=False)
        if name in ALIGNED:
            settings = KaleSettings(layers=0, max_texts=500, training=TrainingSettings(epochs=1))
            with watched(row, "align"):
                align(view, teacher, settings, work / "run", test=(), progress=False)
        encoder = KaleQueryEncoder(model=str(TABLE))
        served = DistilledRetriever(retriever=retriever, query_encoder=encoder, top_k=10)
        row["query_ms"] = query_ms(served, texts[:: max(1, len(texts) // 30)][:30], row)
    finally:
        close()
        shutil.rmtree(work, ignore_errors=True)
    return row


def perturbed(number: int, work: Path) -> tuple[list[str], np.ndarray]:
    """Real texts, again and again, with their vectors moved a little each time; the vectors lie in a file."""
    once = [" ".join(text.split()[:90]) for _, text in python_documentation()]
    base = load_teacher(minilm()).encode_documents(once, progress=True)
    random = np.random.default_rng(0)
    vectors = np.memmap(work / "vectors.f32", dtype=np.float32, mode="w+", shape=(number, DIM))
    for start in range(0, number, 10_000):
        rows = np.arange(start, min(number, start + 10_000)) % len(base)
        moved = base[rows] + random.normal(size=(len(rows), DIM)).astype(np.float32) * (NOISE / DIM**0.5)
        vectors[start : start + len(rows)] = moved / np.linalg.norm(moved, axis=1, keepdims=True)
    vectors.flush()
    return once, vectors


def fill(name: str, store: Any, texts: list[str], vectors: np.ndarray) -> None:
    """Write in batches. FAISS's documents let go of their vectors, which its index has: a list takes 15 KiB."""
    for start in range(0, len(vectors), BATCH):
        numbers = range(start, min(len(vectors), start + BATCH))
        rows = vectors[numbers.start : numbers.stop]
        if name == "chroma":  # the store writes one document a call
            store._ensure_initialized()
            store._collection.add(
                ids=[f"p{number}" for number in numbers],
                documents=[texts[number % len(texts)] for number in numbers],
                embeddings=rows,
            )
            continue
        documents = [
            Document(id=f"p{number}", content=texts[number % len(texts)], embedding=row.tolist())
            for number, row in zip(numbers, rows, strict=True)
        ]
        policy = DuplicatePolicy.OVERWRITE if name == "qdrant" else DuplicatePolicy.NONE
        store.write_documents(documents, policy=policy)
        if name == "faiss":
            store.documents.update({one.id: replace(one, embedding=None) for one in documents})


def query_ms(served: DistilledRetriever, queries: list[str], row: dict[str, Any]) -> float:
    """The median of a query from text to documents."""
    served.warm_up()
    served.run(query=queries[0])
    times = []
    for query in queries:
        start = time.perf_counter()
        found = served.run(query=query)["documents"]
        times.append(time.perf_counter() - start)
        assert len(found) == 10
    row["peak_mib"] = max(row["peak_mib"], own_memory())
    return 1000 * float(np.median(times))


def own_memory() -> float:
    """MiB that are resident and not pages of a file."""
    info = psutil.Process().memory_info()
    return (info.rss - getattr(info, "shared", 0)) / 2**20


@contextmanager
def watched(row: dict[str, Any], what: str) -> Iterator[None]:
    """Time a block and follow the memory it takes."""
    before = peak = own_memory()
    ended = threading.Event()

    def follow() -> None:
        nonlocal peak
        while not ended.wait(0.02):
            peak = max(peak, own_memory())

    follower = threading.Thread(target=follow)
    follower.start()
    start = time.perf_counter()
    try:
        yield
    finally:
        row[f"{what}_seconds"] = time.perf_counter() - start
        ended.set()
        follower.join()
    row[f"{what}_mib"] = max(peak, own_memory()) - before
    row["peak_mib"] = max(row.get("peak_mib", 0.0), peak, own_memory())


Opened = tuple[Any, Any, Callable[[], None]]
"""A store, its retriever, and what closes them."""


def open_in_memory(work: Path) -> Opened:
    """Haystack's own."""
    from haystack.components.retrievers.in_memory import InMemoryEmbeddingRetriever
    from haystack.document_stores.in_memory import InMemoryDocumentStore

    store = InMemoryDocumentStore(embedding_similarity_function="cosine", index=work.name)
    return store, InMemoryEmbeddingRetriever(store), lambda: None


def open_faiss(work: Path) -> Opened:
    """Flat, in this process."""
    del work
    from haystack_integrations.components.retrievers.faiss import FAISSEmbeddingRetriever
    from haystack_integrations.document_stores.faiss import FAISSDocumentStore

    store = FAISSDocumentStore(embedding_dim=DIM)
    return store, FAISSEmbeddingRetriever(document_store=store), lambda: None


def open_qdrant(work: Path) -> Opened:
    """A server if QDRANT_URL names one; else the local mode: Python and numpy, in this process."""
    from haystack_integrations.components.retrievers.qdrant import QdrantEmbeddingRetriever
    from haystack_integrations.document_stores.qdrant import QdrantDocumentStore

    url = os.environ.get("QDRANT_URL")
    where: dict[str, Any] = {"url": url} if url else {"location": ":memory:"}
    store = QdrantDocumentStore(index=work.name, embedding_dim=DIM, progress_bar=False, **where)
    return store, QdrantEmbeddingRetriever(document_store=store), store.close


def open_pgvector(work: Path) -> Opened:
    """A PostgreSQL of its own, exact search."""
    import pgserver
    from haystack.utils import Secret
    from haystack_integrations.components.retrievers.pgvector import PgvectorEmbeddingRetriever
    from haystack_integrations.document_stores.pgvector import PgvectorDocumentStore

    server = pgserver.get_server(work / "postgres")
    store = PgvectorDocumentStore(connection_string=Secret.from_token(server.get_uri()), embedding_dimension=DIM)

    def close() -> None:
        store.close()
        server.cleanup()

    return store, PgvectorEmbeddingRetriever(document_store=store), close


def open_chroma(work: Path) -> Opened:
    """On disk, in this process."""
    from haystack_integrations.components.retrievers.chroma import ChromaEmbeddingRetriever
    from haystack_integrations.document_stores.chroma import ChromaDocumentStore

    store = ChromaDocumentStore(persist_path=str(work / "chroma"), distance_function="cosine")
    return store, ChromaEmbeddingRetriever(document_store=store), store.close


def open_milvus(work: Path, uri: str | None = None) -> Opened:
    """Milvus Lite, in this process, if no server is named."""
    from milvus_haystack import MilvusDocumentStore, MilvusEmbeddingRetriever

    store = MilvusDocumentStore(
        connection_args={"uri": uri or str(work / "milvus.db")},
        index_params={"metric_type": "COSINE", "index_type": "FLAT", "params": {}},
    )
    return store, MilvusEmbeddingRetriever(document_store=store), lambda: None


def open_milvus_server(work: Path) -> Opened:
    """The one that MILVUS_URI names; else the package `milvus` brings one, of which a machine can run one at a time."""
    if uri := os.environ.get("MILVUS_URI"):
        return open_milvus(work, uri)
    uri, stop = start_milvus(work / "server")
    store, retriever, _ = open_milvus(work, uri)
    return store, retriever, stop


def start_milvus(folder: Path) -> tuple[str, Callable[[], None]]:
    """The server of the package `milvus`, which unpacks itself into the folder: where it is, and what ends it."""
    from milvus import MilvusServer

    server = MilvusServer()
    server.set_base_dir(str(folder))
    server.start()

    def stop() -> None:
        server.stop()
        shutil.rmtree(folder, ignore_errors=True)  # half a gigabyte

    return f"http://127.0.0.1:{server.listen_port}", stop


OPEN: dict[str, Callable[[Path], Opened]] = {
    "faiss": open_faiss,
    "qdrant": open_qdrant,
    "pgvector": open_pgvector,
    "chroma": open_chroma,
    "milvus": open_milvus,
    "milvus_server": open_milvus_server,
    "in_memory": open_in_memory,
}


if __name__ == "__main__":
    typer.run(main)
