"""KL divergence over the candidates: DKRR as published."""

from torch import Tensor
from torch.nn import functional


def kl_loss(scores: Tensor, teacher: Tensor) -> Tensor:
    """
    KL divergence of the student's softmax over the candidates from the teacher's (arXiv 2012.04584, section 3.2).

    sentence-transformers' `DistillKLDivLoss` multiplies by the squared temperature, a hundredth and less, beside which
    other losses of a weighted sum would drown it. DKRR has no such factor.

    :param scores: The student's scores over its temperature, `[batch, passages]`.
    :param teacher: The teacher's scores over its temperature, `[batch, passages]`.
    :returns: A scalar.
    """
    target = functional.log_softmax(teacher, dim=-1)
    return functional.kl_div(functional.log_softmax(scores, dim=-1), target, reduction="batchmean", log_target=True)
