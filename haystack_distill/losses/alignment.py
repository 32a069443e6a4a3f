"""The weighted sum of losses that aligns a student with its teacher's vectors."""

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
from sentence_transformers import SentenceTransformer
from torch import Tensor, nn

from haystack_distill.losses.index_ranking import IndexSample
from haystack_distill.losses.table import ALIGNMENT
from haystack_distill.losses.weights import checked_weights, weighted_sum


class AlignmentLoss(nn.Module):
    """
    A weighted sum of losses between the student's vectors and the teacher's, from one forward pass of the student.

    The losses are the rows of `ALIGNMENT`; each is a function beside this file. `mse` and `index_ranking` count in
    units of the teacher's lengths, so that a weight means the same for every encoder. `kale` is as published, which for
    vectors of length 1 is about `mse` over twice the number of dimensions: give it some hundred times the weight.

    Inputs:
        +-------------+------------------------------+
        | Inputs      | Labels                       |
        +=============+==============================+
        | (query)     | teacher vectors [batch, dim] |
        +-------------+------------------------------+

    Example::

        from datasets import Dataset
        from sentence_transformers import SentenceTransformer, SentenceTransformerTrainer
        from haystack_distill.losses.alignment import AlignmentLoss

        teacher, student = SentenceTransformer(name), SentenceTransformer(folder_of_the_cut_encoder)
        texts = ["how do I return a list?", "what does yield do?"]
        rows = Dataset.from_dict({"query": texts, "label": teacher.encode(texts).tolist()})
        loss = AlignmentLoss(student, {"mse": 1.0, "index_ranking": 2.0}, teacher.encode(passages))
        SentenceTransformerTrainer(model=student, train_dataset=rows, loss=loss).train()

    :param model: The student.
    :param weights: Loss name -> weight.
    :param document_vectors: What `index_ranking` ranks, `[documents, dim]`, in the form whose inner product ranks.
    :param teacher_norm: Mean length of the teacher's vectors; 1 for normalised ones.
    :param temperature: Temperature of the `kale` loss.
    :param ranking_temperature: Divides scores in `index_ranking`, for vectors of length 1.
    :param seed: Seed of the random documents in `index_ranking`.
    :raises ValueError: If a name is not known, a weight or temperature is not a positive number, or there are fewer
        than two documents to rank.
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
        self.weights = checked_weights(weights, ALIGNMENT)
        for name, value in (("temperature", temperature), ("ranking_temperature", ranking_temperature)):
            if not 0 < value < float("inf"):
                msg = f"The {name} of the alignment losses must be a positive number, not {value}."
                raise ValueError(msg)
        self.model = model
        self._config = {"weights": self.weights, "temperature": temperature, "ranking_temperature": ranking_temperature}
        document_norm = float(np.linalg.norm(document_vectors[:: max(1, len(document_vectors) // 2000)], axis=1).mean())
        self._settings = {
            "teacher_norm": teacher_norm,
            "temperature": temperature,
            "ranking_temperature": ranking_temperature * teacher_norm * document_norm,
        }
        ranks = any("documents" in ALIGNMENT[name].needs for name in self.weights)
        self._sample = IndexSample(document_vectors, seed) if ranks else None

    def forward(self, sentence_features: Iterable[dict[str, Tensor]], labels: Tensor) -> Tensor:
        """
        Embed the queries once and add up the weighted losses.

        :param sentence_features: The tokenised queries.
        :param labels: Teacher vectors, `[batch, dim]`.
        :returns: A scalar.
        """
        return self.compute_loss_from_embeddings(
            self.model(next(iter(sentence_features)))["sentence_embedding"], labels
        )

    def compute_loss_from_embeddings(self, student: Tensor, teacher: Tensor) -> Tensor:
        """
        Add up the weighted losses of given vectors.

        :param student: `[batch, dim]`.
        :param teacher: `[batch, dim]`.
        :returns: A scalar.
        """
        given: dict[str, Any] = {"student": student, "teacher": teacher.to(student.device), **self._settings}
        if self._sample is not None:
            given["documents"] = self._sample(given["teacher"])
        return weighted_sum(self.weights, ALIGNMENT, given)

    def get_config_dict(self) -> dict[str, Any]:
        """What the model card says of this loss."""
        return self._config

    @property
    def citation(self) -> str:
        """The BibTeX entry of KALE."""
        return """
@inproceedings{campos2023kale,
    title={Quick Dense Retrievers Consume KALE: Post Training Kullback Leibler Alignment of Embeddings for
        Asymmetrical dual encoders},
    author={Campos, Daniel and Magnani, Alessandro and Zhai, ChengXiang},
    booktitle={Proceedings of the Fourth Workshop on Simple and Efficient Natural Language Processing (SustaiNLP)},
    year={2023},
    eprint={2304.01016},
    archivePrefix={arXiv}
}
"""
