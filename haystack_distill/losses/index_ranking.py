"""A loss that compares what teacher and student make of the index, not their vectors."""

from typing import Any

import faiss
import numpy as np
import torch
from sentence_transformers.util import all_gather
from torch import Tensor
from torch.nn import functional

from haystack_distill.files.processes import process_count

ALL_UP_TO = 16_384
"""An index of up to this many documents is ranked whole."""

NEIGHBOURS, RANDOM = 32, 2048
"""In a larger index: this many nearest documents of each query, and this many random ones for the whole batch."""


def index_ranking_loss(student: Tensor, teacher: Tensor, documents: Tensor, ranking_temperature: float) -> Tensor:
    """
    KL divergence between the teacher's and the student's softmax over the scores of a query against documents.

    :param student: `[batch, dim]`.
    :param teacher: `[batch, dim]`.
    :param documents: From `IndexSample`, `[documents, dim]`. They stay as they are; only the query vector moves.
    :param ranking_temperature: Divides the scores. 0.05 suits vectors of length 1.
    :returns: A scalar.
    """
    with torch.no_grad():
        target = functional.log_softmax(teacher.float() @ documents.T / ranking_temperature, dim=-1)
    scores = functional.log_softmax(student.float() @ documents.T / ranking_temperature, dim=-1)
    return functional.kl_div(scores, target, reduction="batchmean", log_target=True)


class IndexSample:
    """
    The documents that a batch is ranked against: a small index whole, of a large one hard neighbours and random ones.

    :param vectors: The index, `[documents, dim]`, in the form whose inner product ranks.
    :param seed: Seed of the random documents.
    :raises ValueError: If there are fewer than two documents.
    """

    def __init__(self, vectors: np.ndarray, seed: int = 0) -> None:
        if len(vectors) < 2:
            msg = f"Ranking needs at least two documents, and the index has {len(vectors)}."
            raise ValueError(msg)
        self._vectors, self._seed = vectors, seed
        small = len(vectors) <= ALL_UP_TO
        self._all = torch.from_numpy(np.array(vectors, dtype=np.float32)) if small else None
        self._neighbours = None if small else _neighbour_index(vectors)

    def __call__(self, teacher: Tensor) -> Tensor:
        """
        Choose the documents for a batch: the same ones for the same batch, whenever it comes.

        :param teacher: `[batch, dim]`.
        :returns: `[documents, dim]`.
        """
        if self._all is not None:
            self._all = self._all.to(teacher.device)
            return self._all
        assert self._neighbours is not None
        if process_count() > 1:  # which share a batch, and so its documents
            teacher = all_gather(teacher)
        queries = np.ascontiguousarray(teacher.detach().cpu().numpy(), dtype=np.float32)
        nearest = self._neighbours.search(queries, NEIGHBOURS)[1].ravel()
        # Drawn from the batch itself, so that a resumed run sees what an unbroken one would have seen.
        generator = np.random.default_rng([self._seed, int(np.abs(queries[:, 0]).sum() * 1e6)])
        random = generator.integers(len(self._vectors), size=RANDOM)
        rows = np.unique(np.concatenate([nearest[nearest >= 0], random]))
        return torch.from_numpy(np.asarray(self._vectors[rows], dtype=np.float32)).to(teacher.device)


def _neighbour_index(vectors: np.ndarray) -> faiss.Index:
    """An approximate inner-product index that builds in seconds: its misses only make some candidates less hard."""
    cells = int(4 * len(vectors) ** 0.5)
    index: Any = faiss.index_factory(int(vectors.shape[1]), f"IVF{cells},Flat", faiss.METRIC_INNER_PRODUCT)
    sample = np.random.default_rng(0).choice(len(vectors), min(len(vectors), 40 * cells), replace=False)
    index.train(np.ascontiguousarray(vectors[np.sort(sample)], dtype=np.float32))
    for start in range(0, len(vectors), 65_536):
        index.add(np.ascontiguousarray(vectors[start : start + 65_536], dtype=np.float32))
    index.nprobe = 8
    return index
