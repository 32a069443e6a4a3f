"""The distance between vectors."""

from torch import Tensor


def mse_loss(student: Tensor, teacher: Tensor, teacher_norm: float) -> Tensor:
    """
    The squared distance, over the squared length of the teacher's vectors, averaged over the batch.

    :param student: `[batch, dim]`.
    :param teacher: `[batch, dim]`.
    :param teacher_norm: Mean length of the teacher's vectors.
    :returns: A scalar.
    """
    return (student.float() - teacher.float()).square().sum(-1).mean() / teacher_norm**2
