"""The weighted sum of losses that a retriever is distilled with."""

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import torch
from sentence_transformers import SentenceTransformer
from sentence_transformers.base.losses.merged_forward import embed_columns
from sentence_transformers.util import all_gather, all_gather_with_grad
from torch import Tensor, nn

from haystack_distill.files.processes import process_count
from haystack_distill.losses.table import RETRIEVER
from haystack_distill.losses.weights import DivergedError, checked_weights, weighted_sum

POOL = 16_384
"""The most documents of the index that `listwise` ranks at once, beside the candidates of a batch."""


class RetrieverLoss(nn.Module):
    """
    A weighted sum of losses between a student's and a teacher's ranking of candidates, from one forward pass.

    The losses are the rows of `RETRIEVER`; each is a function beside this file. Rows of the training set hold the
    number of a query as `label`; what belongs to it is looked up here.

    :param model: The student.
    :param weights: Loss name -> weight.
    :param candidates: Rows of the index, `[queries, passages]`, the teacher's favourite first.
    :param teacher: Teacher scores over their temperature, `[queries, passages]`.
    :param negatives: Rows of the index, `[queries, negatives]`, for `contrastive`.
    :param documents: The index's vectors, `[documents, dim]`, in the form whose inner product ranks; None if documents
        are embedded with the student as further columns: candidates, then negatives.
    :param temperature: Divides the student's scores, for vectors of length 1.
    :param scale: The product of mean query and document length, 1 for normalised vectors.
    :param seed: Seed of the random documents in `listwise`.
    :raises ValueError: If a name is not known or a weight is not a positive number.
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
        self.weights = checked_weights(weights, RETRIEVER)
        self.temperature = temperature
        self.seed = seed
        self.scale = scale
        self.candidates = torch.from_numpy(candidates)
        self.teacher = torch.from_numpy(teacher.astype(np.float32))
        self.negatives = None if negatives is None else torch.from_numpy(negatives)
        self.documents = documents
        self._whole: Tensor | None = None
        self._margin = float(np.sqrt(np.mean((teacher[:, :1] - teacher[:, 1:]) ** 2)))

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
        queries = self.model(query_features)["sentence_embedding"].float() / self.scale
        rows = self.candidates[numbers]
        if self.negatives is not None:
            rows = torch.cat([rows, self.negatives[numbers]], dim=1)
        if self.documents is None:
            vectors = torch.stack(embed_columns(self.model, document_features, separate_first=False), dim=1).float()
        else:
            vectors = self._stored(rows.ravel(), queries).view(*rows.shape, -1)
        total = weighted_sum(self.weights, RETRIEVER, self._given(queries, vectors, rows, self.teacher[numbers]))
        if not torch.isfinite(total):
            msg = f"The loss became {total.item()}: lower the learning rate or raise the temperature."
            raise DivergedError(msg)
        return total

    def _given(self, queries: Tensor, vectors: Tensor, rows: Tensor, teacher: Tensor) -> dict[str, Any]:
        """What the losses are called with; scores are the student's over its temperature."""
        passages = teacher.shape[1]
        needed = {need for name in self.weights for need in RETRIEVER[name].needs}
        given = {
            "scores": (queries[:, None] * vectors[:, :passages]).sum(-1) / self.temperature,
            "teacher": teacher.to(queries.device),
            "teacher_margin": self._margin,
        }
        if "pool_scores" in needed:
            pool, positions = self._pool(rows, vectors, queries)
            given["pool_scores"], given["positions"] = queries @ pool.T / self.temperature, positions[:, :passages]
        if "batch_scores" in needed:
            documents, ids = _without_candidates(vectors, passages), _without_candidates(rows, passages)
            ids = ids.to(queries.device)
            if process_count() > 1:  # the documents of all processes compete
                documents, ids = all_gather_with_grad(documents), all_gather(ids)
            given["batch_scores"] = queries @ documents.flatten(0, 1).T / self.temperature
            given["is_favourite"] = rows[:, :1].to(queries.device) == ids.flatten()
        return given

    def _pool(self, rows: Tensor, vectors: Tensor, like: Tensor) -> tuple[Tensor, Tensor]:
        """The documents that candidates compete with: the index or a sample of it, or the whole batch's."""
        if self.documents is None:
            pool, ids = vectors.flatten(0, 1), rows.flatten().to(vectors.device)
            if process_count() > 1:  # the documents of all processes compete
                pool, ids = all_gather_with_grad(pool), all_gather(ids)
            unique, places = torch.unique(ids, return_inverse=True)
            first = torch.full_like(unique, len(ids))
            first.scatter_reduce_(0, places, torch.arange(len(ids), device=ids.device), reduce="amin")
            return pool[first], torch.searchsorted(unique, rows.to(unique.device))
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


def _without_candidates(of_documents: Tensor, passages: int) -> Tensor:
    """The favourite and the mined negatives of each row."""
    return torch.cat([of_documents[:, :1], of_documents[:, passages:]], dim=1)
