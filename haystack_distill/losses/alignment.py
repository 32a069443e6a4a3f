# SPDX-FileCopyrightText: 2026-present haystack-distill contributors
#
# SPDX-License-Identifier: Apache-2.0

"""Losses by name and their weighted sum, computed from one forward pass."""

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer.losses import EmbedDistillLoss
from torch import Tensor, nn

from haystack_distill.losses.index_ranking import IndexRankingLoss
from haystack_distill.losses.kale import KaleLoss
from haystack_distill.losses.weights import checked_weights

NAMES = ("kale", "mse", "cosine", "index_ranking")


class AlignmentLoss(nn.Module):
    """
    A weighted sum of losses between the student's vectors and the teacher's, from one forward pass of the student.

    :param model: The student.
    :param weights: Loss name -> weight: `kale`, `mse`, `cosine`, `index_ranking`.
    :param document_vectors: What `index_ranking` ranks, `[documents, dim]`.
    :param teacher_norm: Mean length of the teacher's vectors. `mse` is counted in its square and summed over the
        dimensions, and the ranking temperature in its product with the documents' mean length, so that a weight means
        the same for every encoder; 1 for normalised ones.
    :param temperature: Of the `kale` loss.
    :param ranking_temperature: Of `index_ranking`, for vectors of length 1.
    :param seed: Of the random documents in `index_ranking`.
    :raises ValueError: If a name is not known or a weight is not a positive number.
    """

    def __init__(
        self,
        model: SentenceTransformer,
        weights: Mapping[str, float],
        document_vectors: np.ndarray,
        *,
        teacher_norm: float = 1.0,
        temperature: float = 1.0,
        ranking_temperature: float = 0.05,
        seed: int = 0,
    ) -> None:
        super().__init__()
        checked = checked_weights(weights, NAMES)
        self.model = model
        self.weights = dict(checked)
        if "mse" in self.weights:
            self.weights["mse"] *= document_vectors.shape[1] / teacher_norm**2
        self._config = {"weights": checked, "temperature": temperature, "ranking_temperature": ranking_temperature}
        document_norm = float(np.linalg.norm(document_vectors[:: max(1, len(document_vectors) // 2000)], axis=1).mean())
        self.terms: dict[str, Any] = {}
        for name in checked:
            if name == "kale":
                self.terms[name] = KaleLoss(None, temperature)
            elif name == "index_ranking":
                scale = ranking_temperature * teacher_norm * document_norm
                self.terms[name] = IndexRankingLoss(None, document_vectors, scale, seed)
            else:
                self.terms[name] = EmbedDistillLoss(model, distance_metric=name)  # type: ignore[arg-type]

    def forward(self, sentence_features: Iterable[dict[str, Tensor]], labels: Tensor) -> Tensor:
        """
        Embed the queries once and add up the weighted losses.

        :param sentence_features: The tokenised queries.
        :param labels: Teacher vectors, `[batch, dim]`.
        :returns: A scalar.
        """
        student = self.model(next(iter(sentence_features)))["sentence_embedding"]
        return sum(self.weights[name] * self._term(name, student, labels) for name in self.terms)  # type: ignore[return-value]

    def _term(self, name: str, student: Tensor, teacher: Tensor) -> Tensor:
        term = self.terms[name]
        if isinstance(term, EmbedDistillLoss):
            return term.compute_loss_from_embeddings([student], [teacher])
        return term.compute_loss_from_embeddings(student, teacher)

    def get_config_dict(self) -> dict[str, Any]:
        """What the model card says of this loss."""
        return self._config

    @property
    def citation(self) -> str:
        """The BibTeX entry of KALE."""
        return KaleLoss(None).citation
