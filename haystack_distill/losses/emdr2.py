# SPDX-FileCopyrightText: 2026-present haystack-distill contributors
#
# SPDX-License-Identifier: Apache-2.0

"""EMDR2: the answer's likelihood with the passage summed out."""

import torch
from torch import Tensor
from torch.nn import functional


def emdr2_loss(student: Tensor, documents: Tensor, teacher: Tensor, temperature: float) -> Tensor:
    """
    Negative log-likelihood of the answer, summed over the passages it may have been read from.

    `-log sum_k p(a | q, d_k) p(d_k | q)`, the retriever's term of EMDR2 (arXiv 2106.05346, section 2.2). The reader's
    likelihoods are fixed, and those of a whole answer, where Atlas' code sums out the passage for every token.

    :param student: Query vectors, `[batch, dim]`.
    :param documents: Vectors of the candidates, `[batch, passages, dim]`.
    :param teacher: `log p(a | q, d_k)`, `[batch, passages]`, over the teacher's temperature.
    :param temperature: Divides the student's scores.
    :returns: A scalar.
    """
    scores = torch.einsum("bd,bpd->bp", student.float(), documents.float()) / temperature
    return -torch.logsumexp(teacher + functional.log_softmax(scores, dim=-1), dim=-1).mean()
