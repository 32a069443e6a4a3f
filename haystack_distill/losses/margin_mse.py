"""Squared errors of score differences (arXiv 2010.02666)."""

from torch import Tensor


def margin_mse_loss(scores: Tensor, teacher: Tensor, teacher_margin: float) -> Tensor:
    """
    Mean squared error of the differences to the teacher's favourite, over twice the teacher's typical difference.

    A square grows with the margins where a KL divergence grows with their first power. Divided so, its gradient is of
    the size of the other losses', and a weight means the same.

    :param scores: The student's scores over its temperature, `[batch, passages]`, the teacher's favourite first.
    :param teacher: The teacher's scores over its temperature, `[batch, passages]`.
    :param teacher_margin: Root mean square of the teacher's differences over all queries.
    :returns: A scalar.
    """
    errors = (scores[:, :1] - scores[:, 1:]) - (teacher[:, :1] - teacher[:, 1:])
    return errors.square().mean() / (2 * teacher_margin)
