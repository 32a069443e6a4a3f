"""The angle between vectors."""

from torch import Tensor
from torch.nn import functional


def cosine_loss(student: Tensor, teacher: Tensor) -> Tensor:
    """
    One minus the cosine, averaged over the batch.

    :param student: `[batch, dim]`.
    :param teacher: `[batch, dim]`.
    :returns: A scalar.
    """
    return 1 - functional.cosine_similarity(student.float(), teacher.float(), dim=-1).mean()
