"""The alignment loss of KALE (arXiv 2304.01016)."""

from torch import Tensor
from torch.nn import functional


def kale_loss(student: Tensor, teacher: Tensor, temperature: float) -> Tensor:
    """
    KL divergence between the teacher's and the student's vector, each turned into a distribution over its *dimensions*.

    Section 3.1 of KALE, as the authors' code has it: `T^2 * KL(softmax(t / T) || softmax(s / T))`, averaged over the
    batch. It leaves a constant added to all dimensions of the student unpunished, and is close to half the variance of
    `t - s` over the dimensions; `mse` and `cosine` have no such blind spot.

    :param student: `[batch, dim]`.
    :param teacher: `[batch, dim]`.
    :param temperature: T, above 0. The paper's code has 1 by default and 10 in some runs.
    :returns: A scalar.
    """
    student_log = functional.log_softmax(student.float() / temperature, dim=-1)
    teacher_log = functional.log_softmax(teacher.float() / temperature, dim=-1)
    return temperature**2 * functional.kl_div(student_log, teacher_log, reduction="batchmean", log_target=True)
