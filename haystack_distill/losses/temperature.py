"""How sure of itself a teacher may be, whatever the unit of its scores."""

import logging
from collections.abc import Sequence

import numpy as np
from scipy.optimize import brentq

logger = logging.getLogger(__name__)


def entropy_temperature(scores: Sequence[Sequence[float]] | np.ndarray, target: float) -> float:
    """
    Find the temperature at which the teacher's distributions have a given mean entropy.

    Published temperatures belong to one teacher's scale (Atlas: 0.01 for token means); an entropy belongs to none.

    :param scores: The teacher's scores of each query's candidates; queries whose scores are all the same don't count.
    :param target: Mean entropy of softmax(scores / T), each as a share of log(candidates), between 0 and 1.
    :returns: The temperature. If ties at the top keep the entropy above the target, it all but drops what is below.
    :raises ValueError: If the target is not between 0 and 1, or no query has scores that differ.
    """
    if not 0 < target < 1:
        msg = f"The target entropy must lie between 0 and 1 (a share of the largest), not {target}."
        raise ValueError(msg)
    differing = [np.asarray(row, dtype=np.float64) for row in scores if len(set(row)) > 1]
    if not differing:
        msg = "The teacher's scores are all the same: there is nothing to distil. Look at its labels first."
        raise ValueError(msg)

    def excess(log_temperature: float) -> float:
        return float(np.mean([_entropy(row / np.exp(log_temperature)) for row in differing])) - target

    spread = float(np.log(np.median([row.std() for row in differing])))
    low, high = spread - 12, spread + 12
    if excess(low) > 0:
        logger.warning("The teacher's ties keep its entropy above %s however low the temperature is.", target)
        return float(np.exp(low))
    return float(np.exp(brentq(excess, low, high)))


def _entropy(logits: np.ndarray) -> float:
    shares = np.exp(logits - logits.max())
    shares /= shares.sum()
    return float(-np.sum(shares * np.log(np.maximum(shares, 1e-300))) / np.log(len(shares)))
