"""Documents as commands search them: of a folder, embedded into memory, or of the store that a YAML describes."""

from pathlib import Path
from typing import Any

from haystack import Document
from haystack.components.retrievers.in_memory import InMemoryBM25Retriever, InMemoryEmbeddingRetriever
from haystack.document_stores.in_memory import InMemoryDocumentStore
from haystack.utils.deserialization import deserialize_component_inplace

from haystack_distill.cli.errors import vectors_of
from haystack_distill.data.beir import Corpus, read_beir, read_corpus
from haystack_distill.data.index import stored_vectors
from haystack_distill.files.shapes import read_yaml
from haystack_distill.serving.hub import local_folder
from haystack_distill.students.bi_encoder import BiEncoder
from haystack_integrations.components.distill.distilled_retriever import DistilledRetriever
from haystack_integrations.components.distill.kale_query_encoder import KaleQueryEncoder
from haystack_integrations.components.distill.stores import EmbedderSettings, teacher_of


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


def checked_corpus(folder: Path) -> Corpus:
    """Read the documents of a BEIR folder, and its queries and judgments too: faults in them are found out at once."""
    corpus = read_corpus(folder / "corpus.jsonl")
    if (folder / "queries.jsonl").is_file():
        read_beir(folder)
    return corpus


def index_for(
    corpus: Corpus, store: Path | None, encoder: BiEncoder, model: str, output: Path, progress: bool
) -> dict[str, Any]:
    """Init parameters that name an index: the one that a YAML describes, or one made of documents with their titles."""
    if store is None:
        made = FolderStore(corpus, encoder, model, output, progress, titles=True)
        return {"document_store": made, "meta_fields_to_embed": ["title"], "embedding_separator": " "}
    described: dict[str, Any] = {"document_store": read_yaml(store)}
    deserialize_component_inplace(described, "document_store")
    return described


def text_retriever(corpus: Corpus, model: str | None, output: Path, progress: bool) -> Any:
    """A retriever that searches documents for a text: by an encoder, folder or hub name, or by words if it is None."""
    if model is None:
        store = InMemoryDocumentStore()
        store.write_documents([Document(id=key, content=text) for key, text in corpus.documents.items() if text])
        return InMemoryBM25Retriever(store)
    store = FolderStore(corpus, loaded_encoder(model), model, output, progress)
    encoder = KaleQueryEncoder(model=local_folder(model))
    return DistilledRetriever(retriever=InMemoryEmbeddingRetriever(store), query_encoder=encoder)
