"""Candidates of queries out of any retriever, with scores from vectors where there are any."""

from typing import Any

import numpy as np
from haystack import Document

from haystack_distill.data.questions import Question
from haystack_distill.data.similarity import scores
from haystack_distill.data.training_set import RECIPROCAL_RANK, Row
from haystack_integrations.components.distill.parts.inner import inputs_of, warm_up
from haystack_integrations.components.distill.stores import similarity_of, store_of, vectors_of
from haystack_integrations.components.distill.stores.known import kind_of


class CandidateSearch:
    """
    Asks a retriever for candidates and scores them; `TrainingSetBuilder` explains the arguments.

    :raises ValueError: If an embedding retriever comes without its embedder, or judged documents can't be had.
    """

    def __init__(
        self, retriever: Any, embedder: Any, top_k: int, similarity: str | None, *, judgments: bool = False
    ) -> None:
        # DistilledRetriever and Haystack's TextEmbeddingRetriever hold both: taken apart, the query vector is at hand.
        inner: Any = getattr(retriever, "retriever", None)
        encoder: Any = getattr(retriever, "query_encoder", None) or getattr(retriever, "text_embedder", None)
        holds_both = inner is not None and encoder is not None and "query_embedding" in inputs_of(inner)
        self.retriever: Any = inner if holds_both else retriever
        self.embedder: Any = encoder if holds_both else embedder
        self.top_k = top_k
        self.name = type(retriever).__name__
        takes = inputs_of(self.retriever)
        takes_vectors = "query_embedding" in takes
        if takes_vectors and self.embedder is None:
            msg = f"{self.name} searches with vectors: give its text_embedder, the query encoder of the index."
            raise ValueError(msg)
        if not takes_vectors:
            self.embedder = None
        self._options = {"top_k": top_k} if "top_k" in takes else {}
        self.documents = store_of(self.retriever)
        self.store = self.documents if self.embedder is not None else None
        self.judgments = judgments
        if judgments and self.documents is None:
            msg = f"{self.name} has no document store to take judged documents from: search with one that has."
            raise ValueError(msg)
        self.similarity = RECIPROCAL_RANK if self.store is None else similarity or similarity_of(self.store)

    def refuse_what_is_not_shared(self) -> None:
        """Refuse, with a ValueError, a store in memory, which workers would find empty, or one that is not known."""
        if self.documents is None:
            msg = f"Workers open the store of a retriever anew, and none of {self.name} is known: take num_workers=1."
            raise ValueError(msg)
        way_out = kind_of(self.documents).memory_only(self.documents)
        if way_out:
            msg = (
                f"Workers can't search what the {type(self.documents).__name__} keeps in the memory of this process: "
                f"{way_out}, or search with num_workers=1."
            )
            raise ValueError(msg)

    def candidates(self, questions: list[Question]) -> list[Row]:
        """Search; questions that find nothing are left out. A ValueError if a document comes twice or has no vector."""
        found, vectors = [], []
        for question in questions:
            documents, vector = self._search(question.text)
            found.append([document for document in documents if (document.content or "").strip()][: self.top_k])
            vectors.append(vector)
        if self.judgments:
            found = self._with_judged(questions, found)
        stored = self._stored([document for documents in found for document in documents])
        return [
            self._row(question, documents, self._scores(documents, vector, stored))
            for question, documents, vector in zip(questions, found, vectors, strict=True)
            if documents
        ]

    def _with_judged(self, questions: list[Question], found: list[list[Document]]) -> list[list[Document]]:
        """Put each query's relevant documents that were not found in the place of the last ones that were."""
        lacking = []
        for question, documents in zip(questions, found, strict=True):
            there = {document.id for document in documents}
            relevant = [key for key, grade in question.judged.items() if grade > 0 and key not in there]
            lacking.append(relevant[: self.top_k])
        wanted = sorted({key for keys in lacking for key in keys})
        by_id = {"field": "id", "operator": "in", "value": wanted}
        held = self.documents.filter_documents(filters=by_id) if wanted else []
        stored = {document.id: document for document in held if (document.content or "").strip()}
        added = [[stored[key] for key in keys if key in stored] for keys in lacking]
        return [[*documents[: self.top_k - len(more)], *more] for documents, more in zip(found, added, strict=True)]

    def _search(self, query: str) -> tuple[list[Document], list[float] | None]:
        warm_up(self.embedder, self.retriever)
        if self.embedder is None:
            return self.retriever.run(query=query, **self._options)["documents"], None
        vector = self.embedder.run(text=query)["embedding"]
        return self.retriever.run(query_embedding=vector, **self._options)["documents"], vector

    def _stored(self, documents: list[Document]) -> dict[str, Any]:
        """The vectors of documents, asked of the store at once where the retriever did not return them."""
        if self.store is None:
            return {}
        vectors: dict[str, Any] = {
            document.id: document.embedding for document in documents if document.embedding is not None
        }
        missing = sorted({document.id for document in documents} - vectors.keys())
        vectors |= vectors_of(self.store, missing)
        lacking = [document.id for document in documents if vectors.get(document.id) is None]
        if lacking:
            msg = f"The store returns no vector of the document {lacking[0]!r}: embed it, or use a text retriever."
            raise ValueError(msg)
        return vectors

    def _scores(self, documents: list[Document], vector: list[float] | None, stored: dict[str, Any]) -> list[float]:
        if self.store is None or vector is None or not documents:
            return [1 / rank for rank in range(1, len(documents) + 1)]
        matrix = np.asarray([stored[document.id] for document in documents])
        values: list[float] = scores(self.similarity, np.asarray(vector), matrix).tolist()
        return values

    def _row(self, question: Question, documents: list[Document], scores: list[float]) -> Row:
        labels = [question.judged.get(document.id, 0) for document in documents] if question.judged else None
        return Row(
            query_id=question.id,
            query=question.text,
            answers=question.answers,
            document_ids=[document.id for document in documents],
            documents=[document.content or "" for document in documents],
            retriever_scores=scores,
            teacher_scores=[float(label) for label in labels or []] if self.judgments else None,
            labels=labels,
        )
