"""Several replies to offer: a set that covers what people may want to say (SimSR, arXiv 2305.16852)."""

import numpy as np


def covering(vectors: np.ndarray, k: int) -> list[int]:
    """
    Choose replies one by one so that any likely reply is near one of them.

    What people may want to say next is taken to be one of the candidates, each as likely as the others. A set is as
    good as the expected maximum similarity of its members to that (SimSR, section 3.2), which is submodular: choosing
    greedily reaches at least 63 % of the best that any set could. The first candidate is always chosen first, so that
    the best single reply stays what it was.

    :param vectors: Of the candidates, `[candidates, dim]`, the best first.
    :param k: How many to choose.
    :returns: The places of the chosen, in the order in which they were chosen.
    """
    directions = vectors / np.linalg.norm(vectors, axis=1, keepdims=True).clip(min=1e-12)
    near = directions @ directions.T
    chosen = [0]
    while len(chosen) < min(k, len(vectors)):
        covered = near[chosen].max(0)
        gains = np.maximum(near, covered).mean(1)
        gains[chosen] = -np.inf
        chosen.append(int(gains.argmax()))
    return chosen
