# SPDX-FileCopyrightText: 2026-present haystack-distill contributors
#
# SPDX-License-Identifier: Apache-2.0

"""A loss that compares what teacher and student make of the index, not their vectors."""

from collections.abc import Iterable
from typing import Any

import faiss
import numpy as np
import torch
from sentence_transformers import SentenceTransformer
from torch import Tensor, nn
from torch.nn import functional

ALL_UP_TO = 16_384
"""An index of up to this many documents is ranked whole."""

NEIGHBOURS, RANDOM = 32, 2048
"""In a larger index: this many nearest documents of each query, and this many random ones for the whole batch."""


class IndexRankingLoss(nn.Module):
    """
    KL divergence between the teacher's and the student's softmax over the scores of a query against an index.

    The documents' vectors stay as they are; only the query vector moves. A small index is used whole, of a large one
    the documents nearest to the teacher's vectors of the batch (hard neighbours) and a random sample.

    Inputs:
        +-------------+------------------------------+
        | Inputs      | Labels                       |
        +=============+==============================+
        | (query)     | teacher vectors [batch, dim] |
        +-------------+------------------------------+

    Example::

        from haystack_distill.losses.index_ranking import IndexRankingLoss

        loss = IndexRankingLoss(student, document_vectors=teacher.encode(passages), temperature=0.05)
        SentenceTransformerTrainer(model=student, train_dataset=rows, loss=loss).train()

    :param model: The student; None where only `compute_loss_from_embeddings` is used.
    :param document_vectors: `[documents, dim]`, in the form whose inner product ranks.
    :param temperature: Divides the scores, above 0. 0.05 suits vectors of length 1.
    :param seed: Of the random documents.
    :raises ValueError: If the temperature is not a positive number or there are fewer than two documents.
    """

    def __init__(
        self,
        model: SentenceTransformer | None,
        document_vectors: np.ndarray,
        temperature: float = 0.05,
        seed: int = 0,
    ) -> None:
        super().__init__()
        if not 0 < temperature < float("inf"):
            msg = f"The temperature of the index ranking loss must be a positive number, not {temperature}."
            raise ValueError(msg)
        if len(document_vectors) < 2:
            msg = f"Ranking needs at least two documents, and the index has {len(document_vectors)}."
            raise ValueError(msg)
        self.model = model
        self.temperature = temperature
        self.document_vectors = document_vectors
        self._all: Tensor | None = None
        self._neighbours: faiss.Index | None = None
        if len(document_vectors) <= ALL_UP_TO:
            self._all = torch.from_numpy(np.array(document_vectors, dtype=np.float32))
        else:
            self._neighbours = _neighbour_index(document_vectors)
        self._seed = seed

    def forward(self, sentence_features: Iterable[dict[str, Tensor]], labels: Tensor) -> Tensor:
        """
        Embed the queries and compare their ranking of the documents with the teacher's.

        :param sentence_features: The tokenised queries.
        :param labels: Teacher vectors, `[batch, dim]`.
        :returns: A scalar.
        """
        assert self.model is not None
        return self.compute_loss_from_embeddings(
            self.model(next(iter(sentence_features)))["sentence_embedding"], labels
        )

    def compute_loss_from_embeddings(self, student: Tensor, teacher: Tensor) -> Tensor:
        """
        The loss of given vectors.

        :param student: `[batch, dim]`.
        :param teacher: `[batch, dim]`.
        :returns: A scalar.
        """
        documents = self.candidates(teacher).to(student.device).T
        with torch.no_grad():
            target = functional.log_softmax(teacher.float() @ documents / self.temperature, dim=-1)
        scores = functional.log_softmax(student.float() @ documents / self.temperature, dim=-1)
        return functional.kl_div(scores, target, reduction="batchmean", log_target=True)

    def candidates(self, teacher: Tensor) -> Tensor:
        """
        The documents that a batch is ranked against.

        :param teacher: `[batch, dim]`.
        :returns: `[candidates, dim]`; of a large index the same candidates for the same batch, whenever it comes.
        """
        if self._all is not None:
            if self._all.device != teacher.device:
                self._all = self._all.to(teacher.device)
            return self._all
        assert self._neighbours is not None
        queries = np.ascontiguousarray(teacher.detach().cpu().numpy(), dtype=np.float32)
        nearest = self._neighbours.search(queries, NEIGHBOURS)[1].ravel()
        # Drawn from the batch itself, so that a resumed run sees what an unbroken one would have seen.
        generator = np.random.default_rng([self._seed, int(np.abs(queries[:, 0]).sum() * 1e6)])
        random = generator.integers(len(self.document_vectors), size=RANDOM)
        rows = np.unique(np.concatenate([nearest[nearest >= 0], random]))
        return torch.from_numpy(np.asarray(self.document_vectors[rows], dtype=np.float32))

    def get_config_dict(self) -> dict[str, Any]:
        """What the model card says of this loss."""
        return {"temperature": self.temperature, "documents": len(self.document_vectors)}


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
