"""Documents as commands search them: of a folder, embedded into memory, or of the store that a YAML describes."""

from collections.abc import Iterator
from dataclasses import dataclass
from importlib import import_module
from itertools import chain
from pathlib import Path
from typing import Any

from haystack import Document
from haystack.components.retrievers.in_memory import InMemoryBM25Retriever
from haystack.document_stores.in_memory import InMemoryDocumentStore
from haystack.utils.deserialization import deserialize_component_inplace

from haystack_distill.cli.documents import corpus_of
from haystack_distill.cli.errors import to_close, vectors_of
from haystack_distill.data.beir import Corpus, read_judged
from haystack_distill.data.index import stored_vectors
from haystack_distill.files.shapes import read_yaml
from haystack_distill.serving.hub import local_folder
from haystack_distill.students.bi_encoder import BiEncoder
from haystack_integrations.components.distill.distilled_retriever import DistilledRetriever
from haystack_integrations.components.distill.kale_query_encoder import KaleQueryEncoder
from haystack_integrations.components.distill.stores import EmbedderSettings, rows_of, teacher_of
from haystack_integrations.components.distill.stores.base import Row
from haystack_integrations.components.distill.stores.known import kind_of


class FolderStore(InMemoryDocumentStore):
    """
    Documents in memory that are embedded when they are first asked for, so that a job checks its settings before.

    :param model: The encoder's folder or hub name.
    :param output: What is made: beside it the vectors are kept, where a command that was killed finds them again.
    :param titles: Whether titles are meta fields, for jobs that are told that these were embedded with the content.
    """

    def __init__(
        self, corpus: Corpus, encoder: BiEncoder, model: str, output: Path, progress: bool, *, titles: bool = False
    ) -> None:
        super().__init__(embedding_similarity_function=store_similarity(encoder.model.similarity_fn_name, model))
        self._corpus, self._encoder, self._model = corpus, encoder, model
        self._titles, self._embedded = titles, False
        self._file, self._progress = vectors_of(output) / "documents.npy", progress

    @property
    def storage(self) -> dict[str, Document]:
        """The documents by their ids, embedded."""
        if not self._embedded:
            self._embedded = True
            texts = list(self._corpus.documents.values())
            vectors = stored_vectors(
                self._file,
                [self._model, *texts],
                lambda: self._encoder.encode_documents(texts, progress=self._progress),
            )
            rows = zip(self._corpus.documents, texts, vectors, strict=True)
            self.write_documents([self._document(key, text, vector) for key, text, vector in rows])
        return super().storage

    def _document(self, key: str, text: str, vector: Any) -> Document:
        title = self._corpus.titles.get(key) if self._titles else None
        if title is None:
            return Document(id=key, content=text, embedding=vector)
        return Document(id=key, content=text.removeprefix(title).lstrip(), meta={"title": title}, embedding=vector)

    def to_dict(self) -> dict[str, Any]:
        """Serialise what it is to others: what was made with it is bound to its settings, not to this class."""
        return {**super().to_dict(), "type": f"{InMemoryDocumentStore.__module__}.{InMemoryDocumentStore.__name__}"}


def store_similarity(name: str, model: str) -> Any:
    """How the encoder's maker compares its vectors, as the store in memory calls it."""
    names = {"cosine": "cosine", "dot": "dot_product"}
    if name not in names:
        msg = f"{model} compares vectors by {name}, and a store in memory by cosine or dot product: run a YAML."
        raise ValueError(msg)
    return names[name]


def loaded_encoder(model: str) -> BiEncoder:
    """Load the encoder of the documents; a FileNotFoundError if there is none of this name."""
    return teacher_of(EmbedderSettings(local_folder(model)), None)


@dataclass(frozen=True)
class Documents:
    """
    What a command searches.

    :param corpus: The documents of a folder; None for those of a store.
    :param store: The store that a YAML describes, or None.
    """

    corpus: Corpus | None
    store: Any = None

    @classmethod
    def of(cls, folder: Path | None, store: Path | None = None) -> "Documents":
        """Read what is there; faults in a folder's queries and judgments are found out at once, too."""
        judged = folder is not None and (folder / "queries.jsonl").is_file()
        if store is not None:
            if folder and not folder.is_dir():
                msg = f"{folder} is missing: name a folder with queries and judgments, or leave it out."
                raise FileNotFoundError(msg)
            if folder and judged:
                read_judged(folder)
            return cls(None, opened(store))
        if folder is None:
            msg = "There is nothing to read: name a folder of documents, or the store that holds them with --store."
            raise ValueError(msg)
        corpus = corpus_of(folder)
        if judged:
            read_judged(folder)
        return cls(corpus)

    def embedded(self, encoder: BiEncoder, model: str, output: Path, progress: bool) -> Any:
        """The store that is searched by vectors; a folder's documents are embedded when they are first asked for."""
        return FolderStore(self.corpus, encoder, model, output, progress) if self.corpus else self.store

    def index(self, encoder: BiEncoder, model: str, output: Path, progress: bool) -> dict[str, Any]:
        """Init parameters that name the index, and how its documents were embedded."""
        if self.corpus is None:
            return {"document_store": self.store}
        store = FolderStore(self.corpus, encoder, model, output, progress, titles=True)
        return {"document_store": store, "meta_fields_to_embed": ["title"], "embedding_separator": " "}

    def by_words(self) -> Any:
        """A retriever that takes words; a ValueError if the store has none."""
        if self.corpus is None:
            return _retriever(self.store, "keyword")
        store = InMemoryDocumentStore()
        store.write_documents([Document(id=key, content=text) for key, text in self.corpus.documents.items() if text])
        return InMemoryBM25Retriever(store)

    def by_text(self, model: str | None, output: Path, progress: bool, student: str | None = None) -> Any:
        """
        A retriever that takes a text.

        :param model: The encoder, folder or hub name; None searches by words.
        :param student: What embeds the queries in its place, if anything does.
        """
        if model is None:
            return self.by_words()
        retriever = by_vectors(self.embedded(loaded_encoder(model), model, output, progress))
        return DistilledRetriever(retriever=retriever, query_encoder=KaleQueryEncoder(model=student or model))


def opened(store: Path) -> Any:
    """The document store that a YAML describes."""
    described: dict[str, Any] = {"document_store": read_yaml(store)}
    deserialize_component_inplace(described, "document_store")
    made = described["document_store"]
    if hasattr(made, "close"):
        to_close.append(made)
    return made


def documents_in(store: Path) -> Iterator[Row]:
    """All documents of the store that a YAML describes; they are read page by page."""
    return chain.from_iterable(rows_of(opened(store)))


def by_vectors(store: Any) -> Any:
    """The retriever of a store that takes vectors; a ValueError for a store that is not known by name."""
    return _retriever(store, "retriever")


def _retriever(store: Any, what: str) -> Any:
    kind = kind_of(store)
    path = getattr(kind.in_yaml, what, None)
    if path is None:
        remedies = {
            "keyword": "words: name an encoder that finds candidates, or leave the hybrid out",
            "retriever": "vectors: run a pipeline YAML",
        }
        msg = f"No retriever is known that searches a {type(store).__name__} by {remedies[what]}."
        raise ValueError(msg)
    module, _, name = path.rpartition(".")
    return getattr(import_module(module), name)(document_store=store)
