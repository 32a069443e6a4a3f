"""EMDR2: the answer's likelihood with the passage summed out."""

import torch
from torch import Tensor
from torch.nn import functional


def emdr2_loss(scores: Tensor, teacher: Tensor) -> Tensor:
    """
    Negative log-likelihood of the answer, summed over the passages it may have been read from.

    `-log sum_k p(a | q, d_k) p(d_k | q)`, the retriever's term of EMDR2 (arXiv 2106.05346, section 2.2). The reader's
    likelihoods are fixed, and those of a whole answer, where Atlas' code sums out the passage for every token. It is a
    likelihood where the teacher's temperature is 1; any other sharpens or flattens p(a | q, d_k) first.

    :param scores: The student's scores over its temperature, `[batch, passages]`.
    :param teacher: `log p(a | q, d_k)`, over the teacher's temperature, `[batch, passages]`.
    :returns: A scalar.
    """
    return -torch.logsumexp(teacher + functional.log_softmax(scores, dim=-1), dim=-1).mean()
