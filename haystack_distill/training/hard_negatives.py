"""Hard negatives out of an index whose vectors are there already, mined by sentence-transformers."""

from typing import Any

import numpy as np
import torch
from datasets import Dataset
from sentence_transformers.util import dot_score, mine_hard_negatives, pairwise_dot_score

RELATIVE_MARGIN = 0.05
"""A negative must score this share below the positive: what scores alike is likely to be relevant too."""


def hard_negatives(
    query_vectors: np.ndarray, positives: np.ndarray, document_vectors: np.ndarray, count: int
) -> tuple[np.ndarray, np.ndarray]:
    """
    Mine negatives for queries with one positive each, positive-aware as NV-Retriever (arXiv 2407.15831).

    :param query_vectors: `[queries, dim]`.
    :param positives: Rows of the index, `[queries]`.
    :param document_vectors: The index, `[documents, dim]`, in the form whose inner product ranks.
    :returns: The queries that have so many, and their negatives, `[queries, count]`.
    :raises ValueError: If no query has so many.
    """
    pairs = Dataset.from_dict(
        {"query": [str(row) for row in range(len(positives))], "positive": [str(row) for row in positives]}
    )
    mined = mine_hard_negatives(
        pairs,
        _Stored(query_vectors, document_vectors),  # type: ignore[arg-type]
        corpus=[str(row) for row in range(len(document_vectors))],
        num_negatives=count,
        relative_margin=RELATIVE_MARGIN,
        output_format="n-tuple",
        verbose=False,
    )
    if not len(mined):
        msg = f"No query has {count} hard negatives in the index: use a loss without them, such as listwise."
        raise ValueError(msg)
    columns = [np.array(mined[f"negative_{number}"], dtype=np.int64) for number in range(1, count + 1)]
    return np.array(mined["query"], dtype=np.int64), np.stack(columns, axis=1)


class _Stored:
    """Stands for the encoder whose vectors are there; texts are row numbers."""

    device = torch.device("cpu")
    similarity = staticmethod(dot_score)
    similarity_pairwise = staticmethod(pairwise_dot_score)

    def __init__(self, queries: np.ndarray, documents: np.ndarray) -> None:
        self.queries, self.documents = queries, documents

    def encode_query(self, rows: list[str], **_: Any) -> np.ndarray:
        return self.queries[np.array(rows, dtype=np.int64)]

    def encode_document(self, rows: list[str], **_: Any) -> np.ndarray:
        return np.asarray(self.documents[np.array(rows, dtype=np.int64)])
