"""The teacher's ranking of a query's candidates, as a target for a softmax over many more documents."""

from torch import Tensor
from torch.nn import functional


def listwise_loss(pool_scores: Tensor, positions: Tensor, teacher: Tensor) -> Tensor:
    """
    Soft cross-entropy of the teacher's softmax over a query's candidates and the student's over a pool of documents.

    The KL of DKRR (arXiv 2012.04584, section 3.2) compares the candidates among each other only, so nothing keeps other
    documents from rising above them. Here they compete with the pool, to which the teacher gives nothing, as in the
    distillation term of G2R (arXiv 2108.12582, section 3.2), where the pool is random responses.

    :param pool_scores: The student's scores of the pool, candidates included, over its temperature, `[batch, pool]`.
    :param positions: Where each candidate is in the pool, `[batch, passages]`.
    :param teacher: The teacher's scores over its temperature, `[batch, passages]`.
    :returns: A scalar.
    """
    log_probabilities = functional.log_softmax(pool_scores, dim=-1)
    target = functional.softmax(teacher, dim=-1)
    return -(target * log_probabilities.gather(1, positions)).sum(1).mean()
