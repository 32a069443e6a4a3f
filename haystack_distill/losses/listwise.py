# SPDX-FileCopyrightText: 2026-present haystack-distill contributors
#
# SPDX-License-Identifier: Apache-2.0

"""The teacher's ranking of a query's candidates, as a target for a softmax over many more documents."""

from torch import Tensor
from torch.nn import functional


def listwise_loss(student: Tensor, documents: Tensor, positions: Tensor, teacher: Tensor, temperature: float) -> Tensor:
    """
    Soft cross-entropy of the teacher's softmax over a query's candidates and the student's over a pool of documents.

    The KL of DKRR (arXiv 2012.04584, section 3.2) compares the candidates among each other only, so nothing keeps other
    documents from rising above them. Here they compete with the pool, to which the teacher gives nothing, as in the
    distillation term of G2R (arXiv 2108.12582, section 3.2), where the pool is random responses.

    :param student: Query vectors, `[batch, dim]`.
    :param documents: The pool, candidates included, `[pool, dim]`.
    :param positions: Where each candidate is in the pool, `[batch, passages]`.
    :param teacher: Teacher scores over their temperature, `[batch, passages]`.
    :param temperature: Divides the student's scores.
    :returns: A scalar.
    """
    log_probabilities = functional.log_softmax(student.float() @ documents.float().T / temperature, dim=-1)
    target = functional.softmax(teacher, dim=-1)
    return -(target * log_probabilities.gather(1, positions)).sum(1).mean()
