"""The dev measure that training selects by: what a test reports, graded nDCG@10, by the same code."""

from dataclasses import replace

import numpy as np
from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer.evaluation import SentenceEvaluator

from haystack_distill.data.beir import Qrels
from haystack_distill.data.index import IndexView
from haystack_distill.evaluation.quality import measure, own_rows, search
from haystack_distill.training.trainer import METRIC

MOST_DOCUMENTS = 5000
"""Of a larger index about so many documents are embedded again at each evaluation, beside the judged ones."""


class IndexRetrievalEvaluator(SentenceEvaluator):
    """
    nDCG@10 of a query encoder against the vectors of the index as they are; no document is embedded.

    :param queries: Query id -> text; those without judgments are left out.
    :param qrels: Judgments. Grades below 1 count as not relevant.
    """

    def __init__(self, queries: dict[str, str], qrels: Qrels, index: IndexView) -> None:
        super().__init__()
        self.queries = [queries[query_id] for query_id in qrels]
        self.qrels = qrels
        self.index = index
        self.primary_metric = METRIC

    def __call__(  # type: ignore[override]
        self, model: SentenceTransformer, output_path: str | None = None, epoch: int = -1, steps: int = -1
    ) -> dict[str, float]:
        """Measure an encoder; the trainer's other arguments are not used."""
        del output_path, epoch, steps
        vectors = np.asarray(model.encode_query(self.queries, batch_size=64, show_progress_bar=False))
        return {METRIC: self.measured(vectors, self.searched(model))}

    def measured(self, vectors: np.ndarray, index: IndexView) -> float:
        """Measure vectors of the queries, `[queries, dim]`, over an index."""
        ids = list(self.qrels)
        own = own_rows(index, dict(zip(ids, self.queries, strict=True)), self.qrels)
        return measure(search(index, ids, vectors, depth=10, own=own), self.qrels).mean()

    def searched(self, model: SentenceTransformer) -> IndexView:  # noqa: ARG002
        """The index that an encoder of queries searches."""
        return self.index

    def part(self, count: int) -> "IndexRetrievalEvaluator":
        """Make a faster measure, of about `count` of the queries."""
        queries = dict(zip(self.qrels, self.queries, strict=True))
        some = list(self.qrels)[:: max(1, len(self.qrels) // count)]
        return type(self)(queries, {query_id: self.qrels[query_id] for query_id in some}, self.index)


class ReembeddingEvaluator(IndexRetrievalEvaluator):
    """nDCG@10 while both sides move: the judged documents, and an even part of the others, are embedded each time."""

    def __init__(self, queries: dict[str, str], qrels: Qrels, index: IndexView) -> None:
        judged = {document for documents in qrels.values() for document in documents}
        kept = judged | set(index.ids[:: max(1, len(index) // MOST_DOCUMENTS)])
        rows = [row for row, document in enumerate(index.ids) if document in kept]
        part = replace(
            index,
            ids=[index.ids[row] for row in rows],
            texts=[index.texts[row] for row in rows],
            vectors=index.vectors[rows],
        )
        super().__init__(queries, qrels, part)

    def searched(self, model: SentenceTransformer) -> IndexView:
        """The documents as the encoder embeds them now."""
        vectors = model.encode_document(self.index.texts, batch_size=64, show_progress_bar=False)
        return replace(self.index, vectors=np.asarray(vectors))
