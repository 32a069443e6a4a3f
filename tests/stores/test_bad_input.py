"""Stores that are down, hang or break off, and stores whose content can't be used: clear errors, never half a view."""

import logging
import socket
import threading
from types import SimpleNamespace
from typing import Any

import pytest
from haystack import Document, Pipeline
from haystack.document_stores.errors import DocumentStoreError
from haystack.document_stores.in_memory import InMemoryDocumentStore
from haystack.utils import Secret

from haystack_integrations.components.distill.stores import EmbedderSettings, index_of, pages_of, vectors_of
from haystack_integrations.components.distill.stores.known import kind_of
from haystack_integrations.components.distill.stores.ranking import ranking_of
from tests.stores.conftest import DIM, free_port, start_chroma, start_postgres

STORES = "haystack_integrations.components.distill.stores"
ANY = EmbedderSettings("any")


@pytest.fixture(autouse=True)
def impatient(monkeypatch):
    monkeypatch.setattr(f"{STORES}.reading.PAUSE", 0.01)


def qdrant_at(port: int):
    pytest.importorskip("haystack_integrations.document_stores.qdrant")
    from haystack_integrations.document_stores.qdrant import QdrantDocumentStore

    options = {"check_compatibility": False}
    return QdrantDocumentStore(host="127.0.0.1", port=port, https=False, timeout=1, client_kwargs=options)


def pgvector_at(uri: str):
    pytest.importorskip("haystack_integrations.document_stores.pgvector")
    from haystack_integrations.document_stores.pgvector import PgvectorDocumentStore

    return PgvectorDocumentStore(connection_string=Secret.from_token(uri), embedding_dimension=DIM, table_name="broken")


def chroma_at(port: int):
    pytest.importorskip("haystack_integrations.document_stores.chroma")
    from haystack_integrations.document_stores.chroma import ChromaDocumentStore

    return ChromaDocumentStore("broken", host="127.0.0.1", port=port)


class TestConnections:
    @pytest.mark.parametrize("store", ["qdrant", "pgvector", "chroma"])
    def test_a_store_that_is_down(self, store, tmp_path):
        port = free_port()
        down = {
            "qdrant": lambda: qdrant_at(port),
            "pgvector": lambda: pgvector_at(f"postgresql://postgres@127.0.0.1:{port}/postgres"),
            "chroma": lambda: chroma_at(port),
        }[store]()
        with pytest.raises(DocumentStoreError, match=r"could not be read: .*\(4 tries, after 0 documents\)"):
            index_of(down, ANY, tmp_path / "view")
        assert not (tmp_path / "view").exists()

    def test_a_store_that_never_answers(self, tmp_path):
        with socket.create_server(("127.0.0.1", 0)) as silent:
            with pytest.raises(DocumentStoreError, match="timed out.*4 tries"):
                index_of(qdrant_at(silent.getsockname()[1]), ANY, tmp_path / "view")

    def test_a_server_that_is_started_again_on_the_way(self, documents, tmp_path, monkeypatch):
        """The next page is asked for until the server is back; the view is whole all the same."""
        pytest.importorskip("haystack_integrations.document_stores.chroma")
        monkeypatch.setattr(f"{STORES}.known.chroma.PAGE", 7)
        monkeypatch.setattr(f"{STORES}.reading.PAUSE", 1.0)
        port, kill = start_chroma(tmp_path / "chroma")
        store = chroma_at(port)
        store.write_documents(documents[:20])
        pages = pages_of(store)
        read = next(pages)
        kill()
        started: list[Any] = []
        starting = threading.Timer(0.3, lambda: started.append(start_chroma(tmp_path / "chroma", port)))
        starting.start()
        try:
            read += [row for page in pages for row in page]
        finally:
            starting.join()
            started[0][1]()
        assert sorted(key for key, _, _ in read) == sorted(one.id for one in documents[:20])

    def test_a_connection_that_the_server_ends_is_taken_up_again(self, documents, tmp_path, monkeypatch):
        """PostgreSQL ends the connection between two pages; the view is whole all the same."""
        pytest.importorskip("pgserver")
        import psycopg

        monkeypatch.setattr(f"{STORES}.known.pgvector.PAGE", 7)
        uri, stop = start_postgres(tmp_path / "postgres")
        try:
            store = pgvector_at(uri)
            store.write_documents(documents)
            ids = []
            for number, page in enumerate(pages_of(store)):
                ids += [key for key, _, _ in page]
                if number == 3:
                    with psycopg.connect(uri) as other:
                        own = store._connection.info.backend_pid
                        assert other.execute("SELECT pg_terminate_backend(%s)", (own,)).fetchone() == (True,)
            assert sorted(ids) == sorted(one.id for one in documents)
        finally:
            store.close()
            stop()

    def test_a_server_that_dies_on_the_way(self, documents, tmp_path, monkeypatch):
        pytest.importorskip("haystack_integrations.document_stores.chroma")
        monkeypatch.setattr(f"{STORES}.known.chroma.PAGE", 7)
        port, kill = start_chroma(tmp_path / "chroma")
        try:
            store = chroma_at(port)
            store.write_documents(documents[:20])
            pages = pages_of(store)
            assert len(next(pages)) == 7
            kill()
            with pytest.raises(DocumentStoreError, match=r"could not be read: .*\(4 tries, after 7 documents\)"):
                next(pages)
        finally:
            kill()


class Broken(InMemoryDocumentStore):
    """What no real store does on demand: loses documents between counting and reading."""

    def __init__(self, lost: int) -> None:
        super().__init__()
        self.lost = lost

    def count_documents(self) -> int:
        return super().count_documents() + self.lost


class TestContent:
    def test_half_an_index_is_not_used(self, documents, tmp_path):
        store = Broken(lost=3)
        store.write_documents(documents)
        with pytest.raises(DocumentStoreError, match="returned 60 documents and holds 63"):
            index_of(store, ANY, tmp_path / "view")
        assert not (tmp_path / "view").exists()

    def test_a_store_that_is_not_known_is_read_by_the_protocol(self, documents, monkeypatch):
        store = InMemoryDocumentStore()
        store.write_documents(documents)
        monkeypatch.setattr(f"{STORES}.known.KINDS", {})
        assert [len(page) for page in pages_of(store)] == [60]

    def test_vectors_are_read_where_the_protocol_hides_them(self, documents):
        store = InMemoryDocumentStore(return_embedding=False)
        store.write_documents(documents)
        assert all(vector is not None for page in pages_of(store) for _, _, vector in page)
        assert vectors_of(store, ["d7", "nowhere"]) == {"d7": documents[7].embedding}

    def test_vectors_that_only_the_index_holds(self, documents):
        """FAISS documents need not carry their vector; the rows of the index move up when others are deleted."""
        pytest.importorskip("haystack_integrations.document_stores.faiss")
        from dataclasses import replace

        import numpy as np
        from haystack_integrations.document_stores.faiss import FAISSDocumentStore

        store = FAISSDocumentStore(embedding_dim=DIM)
        store.write_documents(documents)
        store.delete_documents(["d4", "d40"])
        store.documents = {key: replace(one, embedding=None) for key, one in store.documents.items()}
        expected = {one.id: one.embedding for one in documents}
        read = {key: vector for page in pages_of(store) for key, _, vector in page}
        assert len(read) == 58
        assert all(np.allclose(vector, expected[key]) for key, vector in read.items())
        assert vectors_of(store, ["d4"]) == {}
        assert np.allclose(vectors_of(store, ["d5", "d4"])["d5"], expected["d5"])
        ranking = ranking_of(store, kind_of(store).search(store), np.array([expected["d1"], expected["d2"]]))
        assert ranking.normalized

    def test_documents_without_a_vector_are_counted_skipped_and_named(
        self, opener, backend, documents, tmp_path, caplog
    ):
        if backend.name.startswith("chroma"):
            pytest.skip("Chroma embeds documents without a vector itself")
        store = opener(documents[:30] + [Document(id=f"bare{number}", content="no vector") for number in range(3)])
        with caplog.at_level(logging.WARNING):
            view = index_of(store, ANY, tmp_path / "view")
        assert (len(view), view.without_vector) == (30, 3)
        assert sorted(view.without_vector_ids) == ["bare0", "bare1", "bare2"]
        assert "3 of 33 documents have no vector and are left out" in caplog.text

    def test_mixed_dimensions_are_named(self, tmp_path):
        """Only the in-memory store takes them."""
        store = InMemoryDocumentStore()
        store.write_documents([Document(id="a", embedding=[1.0, 0.0]), Document(id="b", embedding=[1.0, 0.0, 0.0])])
        with pytest.raises(ValueError, match="'b' has 3 dimensions and the ones before it have 2"):
            index_of(store, ANY, tmp_path / "view")

    def test_an_empty_store_says_how_two_become_one(self, opener, tmp_path):
        with pytest.raises(ValueError, match="holds no documents.* each component of a YAML gets a store of its own"):
            index_of(opener(), ANY, tmp_path / "view")

    def test_two_stores_in_one_yaml_that_are_meant_to_be_one(self, documents, bert, tmp_path):
        """The writer fills one store, and the aligner opens another with the same words."""
        store = "{type: haystack.document_stores.in_memory.document_store.InMemoryDocumentStore, init_parameters: {%s}}"
        text = f"""
components:
  writer:
    type: haystack.components.writers.document_writer.DocumentWriter
    init_parameters: {{document_store: {store}}}
  aligner:
    type: haystack_integrations.components.distill.kale_aligner.KaleAligner
    init_parameters: {{document_store: {store}, teacher: {bert}, output: {tmp_path}/student}}
connections: []
"""
        apart = Pipeline.loads(text % ("", ""))
        apart.get_component("writer").run(documents=documents)
        with pytest.raises(ValueError, match="give both the same `index`"):
            apart.get_component("aligner").run()
        one = Pipeline.loads(text % ("index: one", "index: one"))
        one.get_component("writer").run(documents=documents)
        view = index_of(one.get_component("aligner").document_store, ANY, tmp_path / "view")
        assert len(view) == 60

    @pytest.mark.parametrize("setting", ["recreate_index", "recreate_table"])
    def test_a_setting_that_would_empty_the_store_is_refused(self, setting, tmp_path):
        store = SimpleNamespace(**{setting: True})
        with pytest.raises(ValueError, match=f"{setting}=True, which deletes the index"):
            index_of(store, ANY, tmp_path / "view")
