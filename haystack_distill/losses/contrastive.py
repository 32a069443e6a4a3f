"""The teacher's favourite against negatives."""

import torch
from torch import Tensor


def contrastive_loss(scores: Tensor, batch_scores: Tensor, is_favourite: Tensor) -> Tensor:
    """
    Cross-entropy of the teacher's favourite among the favourites and mined negatives of the whole batch.

    A document that is another row's favourite or negative, and this row's favourite too, is no negative of this row.

    :param scores: The student's scores over its temperature, `[batch, passages]`, the teacher's favourite first.
    :param batch_scores: The student's scores of all favourites and negatives of the batch, `[batch, documents]`.
    :param is_favourite: Which of them is the row's own favourite, wherever it comes from, `[batch, documents]`.
    :returns: A scalar.
    """
    favourite = scores[:, :1]
    against = batch_scores.masked_fill(is_favourite, float("-inf"))
    return (torch.cat([favourite, against], dim=1).logsumexp(1) - favourite[:, 0]).mean()
