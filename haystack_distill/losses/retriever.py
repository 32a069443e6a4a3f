# SPDX-FileCopyrightText: 2026-present haystack-distill contributors
#
# SPDX-License-Identifier: Apache-2.0

"""Losses of a retriever by name and their weighted sum, computed from one forward pass."""

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import torch
from sentence_transformers import SentenceTransformer
from sentence_transformers.base.losses.merged_forward import embed_columns
from sentence_transformers.sentence_transformer.losses import (
    DistillKLDivLoss,
    MarginMSELoss,
    MultipleNegativesRankingLoss,
)
from sentence_transformers.util import dot_score, pairwise_dot_score
from torch import Tensor, nn

from haystack_distill.files.processes import process_count
from haystack_distill.losses.emdr2 import emdr2_loss
from haystack_distill.losses.listwise import listwise_loss
from haystack_distill.losses.weights import DivergedError

NAMES = ("kl", "listwise", "margin_mse", "emdr2", "contrastive")
POOL = 16_384
"""The most documents of the index that `listwise` ranks at once, beside the candidates of a batch."""


class RetrieverLoss(nn.Module):
    """
    A weighted sum of losses between a student's and a teacher's ranking of candidates, from one forward pass.

    - `kl`: DKRR (arXiv 2012.04584, section 3.2): KL over the candidates of each query
    - `listwise`: the same target against a softmax over the index, see `listwise_loss`
    - `margin_mse`: squared error of score differences to the teacher's favourite (arXiv 2010.02666)
    - `emdr2`: see `emdr2_loss`
    - `contrastive`: the teacher's favourite against mined and in-batch negatives

    Rows hold the number of a query as `label`; what belongs to it is looked up here.

    :param model: The student.
    :param weights: Loss name -> weight.
    :param candidates: Rows of the index, `[queries, passages]`, the teacher's favourite first.
    :param teacher: Teacher scores over their temperature, `[queries, passages]`.
    :param negatives: Rows of the index, `[queries, negatives]`, for `contrastive`.
    :param documents: The index's vectors, `[documents, dim]`, in the form whose inner product ranks; None if documents
        are embedded with the student as further columns: candidates, then negatives.
    :param temperature: Of the student's scores, for vectors of length 1.
    :param scale: The product of mean query and document length, 1 for normalised vectors.
    :param seed: Of the random documents in `listwise`.
    """

    def __init__(
        self,
        model: SentenceTransformer,
        weights: Mapping[str, float],
        candidates: np.ndarray,
        teacher: np.ndarray,
        negatives: np.ndarray | None = None,
        documents: np.ndarray | None = None,
        *,
        temperature: float = 0.05,
        scale: float = 1.0,
        seed: int = 0,
    ) -> None:
        super().__init__()
        self.model = model
        self.weights = dict(weights)
        self.temperature = temperature
        self.seed = seed
        self.scale = scale
        self.candidates = torch.from_numpy(candidates)
        self.teacher = torch.from_numpy(teacher.astype(np.float32))
        self.negatives = None if negatives is None else torch.from_numpy(negatives)
        self.documents = documents
        self._whole: Tensor | None = None
        self._kl = DistillKLDivLoss(model, pairwise_dot_score, student_temperature=temperature, teacher_temperature=1.0)
        self._margin = MarginMSELoss(model, pairwise_dot_score)
        self._contrastive = MultipleNegativesRankingLoss(
            model, scale=1 / temperature, similarity_fct=dot_score, gather_across_devices=process_count() > 1
        )

    def forward(self, sentence_features: Iterable[dict[str, Tensor]], labels: Tensor) -> Tensor:
        """
        Embed the queries, and the documents where they move, and add up the weighted losses.

        :param sentence_features: The tokenised queries, and documents where they move.
        :param labels: The numbers of the queries, `[batch]`.
        :returns: A scalar.
        :raises DivergedError: If it is no number.
        """
        query_features, *document_features = sentence_features
        numbers = labels.cpu()
        queries = self.model(query_features)["sentence_embedding"] / self.scale
        rows = self.candidates[numbers]
        if self.negatives is not None:
            rows = torch.cat([rows, self.negatives[numbers]], dim=1)
        if self.documents is None:
            vectors = torch.stack(embed_columns(self.model, document_features, separate_first=False), dim=1)
        else:
            vectors = self._stored(rows.ravel(), queries).view(*rows.shape, -1)
        total = sum(
            weight * self._term(name, queries, vectors, rows, self.teacher[numbers].to(queries.device))
            for name, weight in self.weights.items()
        )
        assert isinstance(total, Tensor)
        if not torch.isfinite(total):
            msg = f"The loss became {total.item()}: lower the learning rate or raise the temperature."
            raise DivergedError(msg)
        return total

    def _term(self, name: str, queries: Tensor, vectors: Tensor, rows: Tensor, teacher: Tensor) -> Tensor:
        candidates, negatives = vectors[:, : teacher.shape[1]], vectors[:, teacher.shape[1] :]
        if name == "kl":
            return self._kl.compute_loss_from_embeddings([queries, *candidates.unbind(1)], teacher)
        if name == "margin_mse":
            # In units of the student's temperature, so that a weight means the same beside the other losses.
            scaled = [queries / self.temperature, *candidates.unbind(1)]
            return self._margin.compute_loss_from_embeddings(scaled, teacher)
        if name == "emdr2":
            return emdr2_loss(queries, candidates, teacher, self.temperature)
        if name == "contrastive":
            columns = [queries, candidates[:, 0], *negatives.unbind(1)]
            return self._contrastive.compute_loss_from_embeddings(columns, teacher)
        pool, positions = self._pool(rows, vectors, queries)
        return listwise_loss(queries, pool, positions[:, : teacher.shape[1]], teacher, self.temperature)

    def _pool(self, rows: Tensor, vectors: Tensor, like: Tensor) -> tuple[Tensor, Tensor]:
        """The documents that candidates compete with: the index or a sample of it, or the whole batch's."""
        if self.documents is None:
            unique, positions = torch.unique(rows, return_inverse=True)
            first = torch.full((len(unique),), rows.numel(), dtype=torch.long)
            first.scatter_reduce_(0, positions.ravel(), torch.arange(rows.numel()), reduce="amin")
            return vectors.flatten(0, 1)[first.to(vectors.device)], positions.to(like.device)
        if len(self.documents) <= POOL:
            if self._whole is None or self._whole.device != like.device:
                self._whole = torch.from_numpy(np.array(self.documents, dtype=np.float32)).to(like.device)
            return self._whole, rows.to(like.device)
        # Drawn from the batch itself, so that a resumed run sees what an unbroken one would have seen.
        random = np.random.default_rng([self.seed, int(rows.sum())]).integers(len(self.documents), size=POOL)
        unique, positions = torch.unique(torch.cat([rows.ravel(), torch.from_numpy(random)]), return_inverse=True)
        return self._stored(unique, like), positions[: rows.numel()].view(rows.shape).to(like.device)

    def _stored(self, rows: Tensor, like: Tensor) -> Tensor:
        assert self.documents is not None
        return torch.from_numpy(np.array(self.documents[rows.numpy()], dtype=np.float32)).to(like.device)

    def get_config_dict(self) -> dict[str, Any]:
        """What the model card says of this loss."""
        return {"weights": self.weights, "temperature": self.temperature}
