# SPDX-FileCopyrightText: 2026-present haystack-distill contributors
#
# SPDX-License-Identifier: Apache-2.0

"""The alignment loss of KALE (arXiv 2304.01016)."""

from collections.abc import Iterable
from typing import Any

from sentence_transformers import SentenceTransformer
from torch import Tensor, nn
from torch.nn import functional


class KaleLoss(nn.Module):
    """
    KL divergence between the teacher's and the student's vector, each turned into a distribution over its *dimensions*.

    Section 3.1 of KALE, as the authors' code has it: `T^2 * KL(softmax(t / T) || softmax(s / T))`, averaged over the
    batch. It leaves a constant added to all dimensions of the student unpunished, and is close to half the variance of
    `t - s`; `mse` and `cosine` have no such blind spot.

    Inputs:
        +-------------+------------------------------+
        | Inputs      | Labels                       |
        +=============+==============================+
        | (query)     | teacher vectors [batch, dim] |
        +-------------+------------------------------+

    Example::

        from datasets import Dataset
        from sentence_transformers import SentenceTransformer, SentenceTransformerTrainer
        from haystack_distill.losses.kale import KaleLoss

        teacher, student = SentenceTransformer(name), SentenceTransformer(folder_of_the_cut_encoder)
        texts = ["how do I return a list?", "what does yield do?"]
        rows = Dataset.from_dict({"query": texts, "label": teacher.encode(texts).tolist()})
        SentenceTransformerTrainer(model=student, train_dataset=rows, loss=KaleLoss(student)).train()

    :param model: The student; None where only `compute_loss_from_embeddings` is used.
    :param temperature: T, above 0. The paper's code has 1 by default and 10 in some runs.
    :raises ValueError: If the temperature is not a positive number.
    """

    def __init__(self, model: SentenceTransformer | None, temperature: float = 1.0) -> None:
        super().__init__()
        if not 0 < temperature < float("inf"):
            msg = f"The temperature of the KALE loss must be a positive number, not {temperature}."
            raise ValueError(msg)
        self.model = model
        self.temperature = temperature

    def forward(self, sentence_features: Iterable[dict[str, Tensor]], labels: Tensor) -> Tensor:
        """
        Embed the queries and compare them with the teacher's vectors.

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
        student_log = functional.log_softmax(student.float() / self.temperature, dim=-1)
        teacher_log = functional.log_softmax(teacher.float() / self.temperature, dim=-1)
        divergence = functional.kl_div(student_log, teacher_log, reduction="batchmean", log_target=True)
        return divergence * self.temperature**2

    def get_config_dict(self) -> dict[str, Any]:
        """What the model card says of this loss."""
        return {"temperature": self.temperature}

    @property
    def citation(self) -> str:
        """The BibTeX entry of the paper."""
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
