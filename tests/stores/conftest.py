"""
The stores of the contract: each is a real one, embedded or started here.

A test that takes `filled` runs once with every store, full of the same documents; it must not write. A test that takes
`backend` makes its own. Stores whose packages are missing are skipped and say so. A new store is a new function that
makes it and a new line in BACKENDS; what it can rank by, and in which words, is what the package knows of its kind. A
new subject is a new file beside this one.
"""

import asyncio
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from haystack import Document
from haystack.utils import Secret

from benchmarks.stores import start_milvus
from haystack_distill import DistilledRetriever, KaleQueryEncoder
from haystack_integrations.components.distill.stores.base import StoreKind
from haystack_integrations.components.distill.stores.known import KINDS

DIM = 32


@dataclass(frozen=True)
class New:
    """A store that is to be made; `similarity` is its word, and `server` starts a server and tells where it is."""

    folder: Path
    name: str
    similarity: str
    dim: int
    server: Callable[[str], Any]


def in_memory(new: New) -> Any:
    from haystack.document_stores.in_memory import InMemoryDocumentStore

    return InMemoryDocumentStore(embedding_similarity_function=new.similarity, index=new.name)


def faiss(new: New) -> Any:
    from haystack_integrations.document_stores.faiss import FAISSDocumentStore

    return FAISSDocumentStore(embedding_dim=new.dim, index_path=str(new.folder / new.name))


def qdrant(new: New, **where: Any) -> Any:
    from haystack_integrations.document_stores.qdrant import QdrantDocumentStore

    where = where or {"path": str(new.folder / new.name)}
    return QdrantDocumentStore(
        index=new.name, embedding_dim=new.dim, similarity=new.similarity, progress_bar=False, **where
    )


def qdrant_server(new: New) -> Any:
    return qdrant(new, url=new.server("qdrant"))


def chroma(new: New, **where: Any) -> Any:
    from haystack_integrations.document_stores.chroma import ChromaDocumentStore

    where = where or {"persist_path": str(new.folder / new.name)}
    return ChromaDocumentStore(collection_name=new.name, distance_function=new.similarity, **where)


def chroma_server(new: New) -> Any:
    return chroma(new, host="127.0.0.1", port=new.server("chroma"))


def milvus(new: New, uri: str | None = None) -> Any:
    from milvus_haystack import MilvusDocumentStore

    return MilvusDocumentStore(
        connection_args={"uri": uri or str(new.folder / f"{new.name}.db")},
        collection_name=new.name,
        index_params={"metric_type": new.similarity, "index_type": "FLAT", "params": {}},
    )


def milvus_server(new: New) -> Any:
    return milvus(new, uri=new.server("milvus"))


def pgvector(new: New) -> Any:
    from haystack_integrations.document_stores.pgvector import PgvectorDocumentStore

    os.environ["PG_CONN_STR"] = new.server("pgvector")  # the store's own default, so that a YAML holds no secret
    return PgvectorDocumentStore(
        connection_string=Secret.from_env_var("PG_CONN_STR"),
        table_name=new.name,
        embedding_dimension=new.dim,
        vector_function=new.similarity,
        hnsw_index_name=f"{new.name}_hnsw",
        keyword_index_name=f"{new.name}_keyword",
    )


@dataclass(frozen=True)
class Backend:
    """A store of the contract: what its kind is called, the modules it needs, how it is made."""

    name: str
    title: str
    modules: tuple[str, ...]
    make: Callable[[New], Any]
    retriever: str

    @property
    def kind(self) -> StoreKind:
        return next(kind for kind in KINDS.values() if kind.title == self.title)

    @property
    def similarities(self) -> tuple[str, ...]:
        """What it can rank by, its default first."""
        return tuple(self.kind.similarities.values())

    def word_for(self, similarity: str) -> str:
        return next(word for word, ours in self.kind.similarities.items() if ours == similarity)

    def retriever_of(self, store: Any, **options: Any) -> Any:
        module, name = self.retriever.rsplit(".", 1)
        return getattr(pytest.importorskip(module), name)(document_store=store, **options)


ALL = ("cosine", "dot_product", "euclidean")
_HOME = "haystack_integrations.components.retrievers"
_STORES = "haystack_integrations.document_stores"
_IN_MEMORY = "haystack.components.retrievers.in_memory.InMemoryEmbeddingRetriever"
_QDRANT, _CHROMA = f"{_HOME}.qdrant.QdrantEmbeddingRetriever", f"{_HOME}.chroma.ChromaEmbeddingRetriever"
_MILVUS, _PGVECTOR = "milvus_haystack.MilvusEmbeddingRetriever", f"{_HOME}.pgvector.PgvectorEmbeddingRetriever"
BACKENDS = [
    Backend("in_memory", "InMemory", (), in_memory, _IN_MEMORY),
    Backend("faiss", "FAISS", (f"{_STORES}.faiss",), faiss, f"{_HOME}.faiss.FAISSEmbeddingRetriever"),
    Backend("qdrant", "Qdrant", (f"{_STORES}.qdrant",), qdrant, _QDRANT),
    Backend("qdrant_server", "Qdrant", (f"{_STORES}.qdrant",), qdrant_server, _QDRANT),
    Backend("chroma", "Chroma", (f"{_STORES}.chroma",), chroma, _CHROMA),
    Backend("chroma_server", "Chroma", (f"{_STORES}.chroma",), chroma_server, _CHROMA),
    Backend("milvus", "Milvus", ("milvus_haystack", "milvus_lite"), milvus, _MILVUS),
    Backend("milvus_server", "Milvus", ("milvus_haystack", "milvus"), milvus_server, _MILVUS),
    Backend("pgvector", "pgvector", (f"{_STORES}.pgvector", "pgserver"), pgvector, _PGVECTOR),
]


class Opener:
    """Makes stores of one backend, each under a new name, and closes them at the end."""

    def __init__(self, backend: Backend, folder: Path, servers: Any) -> None:
        self.backend, self.folder, self._servers = backend, folder, servers
        self._made: list[Any] = []

    def __call__(self, documents: list[Document] | None = None, similarity: str | None = None, dim: int = DIM) -> Any:
        name = f"{self.backend.name}{len(self._made)}_{os.urandom(3).hex()}"
        store = self.backend.make(
            New(
                self.folder,
                name,
                self.backend.word_for(similarity or self.backend.similarities[0]),
                dim,
                self._servers,
            )
        )
        self._made.append(store)
        if documents:
            store.write_documents(documents)
        return store

    def close(self) -> None:
        for store in self._made:
            if hasattr(store, "close"):
                store.close()


@pytest.fixture(scope="session", params=BACKENDS, ids=lambda backend: backend.name)
def backend(request) -> Backend:
    for module in request.param.modules:
        pytest.importorskip(module, reason=f"{request.param.name} is not run: no {module} here (docs/stores.md)")
    if request.param.name == "qdrant_server" and not os.environ.get("QDRANT_URL"):
        pytest.skip("qdrant_server is not run: no package brings the server, and QDRANT_URL names none")
    return request.param


@pytest.fixture(scope="session")
def servers(tmp_path_factory):
    """Starts a server when it is first asked for; ends them all."""
    running: dict[str, Any] = {}

    def where(name: str) -> Any:
        if name == "qdrant":
            return os.environ["QDRANT_URL"]
        if name not in running:
            running[name] = STARTERS[name](tmp_path_factory.mktemp(name))
        return running[name][0]

    yield where
    for _, stop in running.values():
        stop()


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


def start_chroma(folder: Path, port: int | None = None) -> tuple[int, Callable[[], None]]:
    port = port or free_port()
    program = shutil.which("chroma", path=f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
    command = [program, "run", "--path", str(folder), "--host", "127.0.0.1", "--port", str(port)]
    server = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    for _ in range(300):
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
            break
        except OSError:
            time.sleep(0.1)

    def stop() -> None:
        server.kill()
        server.wait()

    return port, stop


def start_postgres(folder: Path) -> tuple[str, Callable[[], None]]:
    import pgserver

    server = pgserver.get_server(folder)
    return server.get_uri(), server.cleanup


STARTERS = {"chroma": start_chroma, "milvus": start_milvus, "pgvector": start_postgres}


@pytest.fixture(scope="session")
def opener(backend, servers, tmp_path_factory):
    made = Opener(backend, tmp_path_factory.mktemp(backend.name), servers)
    yield made
    made.close()


@pytest.fixture(scope="session")
def documents(teacher, passages) -> list[Document]:
    """Sixty documents with ids, meta data and the teacher's vectors, which have length 1."""
    vectors = teacher.encode_documents(list(passages.values()))
    metas = [{"number": number, "parity": "odd" if number % 2 else "even"} for number in range(len(passages))]
    return [
        Document(id=key, content=text, meta=meta, embedding=row)
        for (key, text), meta, row in zip(passages.items(), metas, vectors.tolist(), strict=True)
    ]


@pytest.fixture(scope="session")
def uneven() -> list[Document]:
    """Documents whose vectors differ in length, so that each similarity ranks them in its own way."""
    random = np.random.default_rng(5)
    vectors = random.normal(size=(60, DIM)) * random.uniform(0.3, 3.0, size=(60, 1))
    return [
        Document(id=f"d{number}", content=f"text {number}", embedding=row)
        for number, row in enumerate(vectors.tolist())
    ]


@pytest.fixture(scope="session")
def filled(opener, documents) -> Any:
    return opener(documents)


@pytest.fixture
def distilled(backend, filled, bert) -> DistilledRetriever:
    """The retriever over the full store, with the encoder that made it."""
    return DistilledRetriever(retriever=backend.retriever_of(filled), query_encoder=KaleQueryEncoder(model=bert))


def both_ways(retriever: DistilledRetriever, **inputs: Any) -> list[Document]:
    """Run synchronously and asynchronously; both must find the same."""
    found = retriever.run(**inputs)["documents"]
    again = asyncio.run(retriever.run_async(**inputs))["documents"]
    assert [one.id for one in again] == [one.id for one in found]
    return found
