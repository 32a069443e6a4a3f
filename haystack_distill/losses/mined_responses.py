"""The loss of the recipe `strong`: what people replied, and what a teacher thinks of mined responses."""

from collections.abc import Iterable
from typing import Any

from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer.losses import MarginMSELoss, MultipleNegativesRankingLoss
from sentence_transformers.util import cos_sim, pairwise_cos_sim
from torch import Tensor, nn

from haystack_distill.files.processes import process_count


class MinedResponsesLoss(nn.Module):
    """
    Contrastive on the human reply, distilled on mined responses.

    With s the student's cosines times `scale`, h the human reply of a context, and b its first mined response, which
    the teacher scores highest:

    - `main` = -log(exp s_h / sum exp s) over the human replies of the batch: `MultipleNegativesRankingLoss`
    - `distillation` = mean over its other mined responses m of ((s_b - s_m) - (t_b - t_m))^2, with t the teacher's
      scores: `MarginMSELoss` (arXiv 2010.02666)
    - loss = main + weight * distillation

    The human reply is not in the distillation, for a generator takes nearly every human reply for worse than its own;
    and mined responses are no negatives of `main`, for many of them are as good a reply (docs/decisions/0004). A reply
    that several contexts share must not be in one batch twice: train with the sampler `no_duplicates`.

    Inputs:
        +------------------------------------------------+-----------------------------------------------------+
        | Inputs                                         | Labels                                              |
        +================================================+=====================================================+
        | (query, human reply, mined_1, ..., mined_n),   | teacher scores of the mined, [batch, n], in the     |
        | n at least 2                                   | unit of s                                           |
        +------------------------------------------------+-----------------------------------------------------+

    Example::

        from datasets import Dataset
        from sentence_transformers import SentenceTransformerTrainer
        from haystack_distill.losses.mined_responses import MinedResponsesLoss

        rows = Dataset.from_dict({
            "query": ["do you like jazz?", "hello"],
            "human": ["I love it.", "hi, how are you?"],
            "mined_1": ["Only live.", "good morning"],
            "mined_2": ["It rains.", "I love it."],
            "label": [[2.1, -0.9], [1.0, -2.0]],
        })
        loss = MinedResponsesLoss(student, weight=0.02)
        SentenceTransformerTrainer(model=student, train_dataset=rows, loss=loss).train()

    :param model: The student; None where only `compute_loss_from_embeddings` is used.
    :param weight: Weight of the distillation.
    :param scale: Multiplies cosines.
    """

    def __init__(self, model: SentenceTransformer | None, *, weight: float, scale: float = 20.0) -> None:
        super().__init__()
        self.model = model
        self.weight = weight
        self.scale = scale
        # Both are only given vectors, for which they need no model. The replies of all processes compete.
        self.main = MultipleNegativesRankingLoss(
            model,  # type: ignore[arg-type]
            scale=scale,
            similarity_fct=cos_sim,
            gather_across_devices=process_count() > 1,
        )
        self.distillation = MarginMSELoss(model, similarity_fct=self._similarity)  # type: ignore[arg-type]

    def forward(self, sentence_features: Iterable[dict[str, Tensor]], labels: Tensor) -> Tensor:
        """
        Embed contexts and responses.

        :param sentence_features: The tokenised contexts, human replies and mined responses.
        :param labels: Teacher scores of the mined, `[batch, n]`.
        :returns: A scalar.
        """
        assert self.model is not None
        columns = [self.model(column)["sentence_embedding"] for column in sentence_features]
        return self.compute_loss_from_embeddings(columns, labels)

    def compute_loss_from_embeddings(self, embeddings: list[Tensor], labels: Tensor) -> Tensor:
        """
        The loss of given vectors.

        :param embeddings: Contexts, human replies, and each place of the mined responses, each `[batch, dim]`.
        :param labels: Teacher scores of the mined, `[batch, n]`.
        :returns: A scalar.
        """
        queries, human, *mined = (vectors.float() for vectors in embeddings)
        main = self.main.compute_loss_from_embeddings([queries, human], labels)
        return main + self.weight * self.distillation.compute_loss_from_embeddings([queries, *mined], labels.float())

    def _similarity(self, queries: Tensor, documents: Tensor) -> Tensor:
        return self.scale * pairwise_cos_sim(queries, documents)

    def get_config_dict(self) -> dict[str, Any]:
        """What the model card says of this loss."""
        return {"weight": self.weight, "scale": self.scale}
