"""Batches of texts of similar length: padding is computed like text, and short texts should not pay for long ones."""

from collections.abc import Iterator
from typing import Any

import numpy as np
from sentence_transformers.base.sampler import DefaultBatchSampler

POOL = 32
"""Batches are cut from pools of this many: long enough to sort well, short enough to stay random."""


class LengthBatchSampler(DefaultBatchSampler):
    """Shuffle, sort pools of batches by length, shuffle the batches; the same seed and epoch give the same batches."""

    def __init__(self, dataset: Any, batch_size: int, drop_last: bool, **kwargs: Any) -> None:
        super().__init__(dataset, batch_size=batch_size, drop_last=drop_last, **kwargs)
        self.lengths = np.array([len(text) for text in dataset["query"]])

    def __iter__(self) -> Iterator[list[int]]:
        """The rows of each batch."""
        random = np.random.default_rng([self.seed, self.epoch])
        order = random.permutation(len(self.lengths))
        batches: list[np.ndarray] = []
        for start in range(0, len(order), POOL * self.batch_size):
            pool = order[start : start + POOL * self.batch_size]
            pool = pool[np.argsort(self.lengths[pool], kind="stable")]
            batches += [pool[first : first + self.batch_size] for first in range(0, len(pool), self.batch_size)]
        if self.drop_last:
            batches = [batch for batch in batches if len(batch) == self.batch_size]
        for number in random.permutation(len(batches)):
            yield batches[number].tolist()

    def __len__(self) -> int:
        """The number of batches."""
        rows = len(self.lengths)
        return rows // self.batch_size if self.drop_last else -(-rows // self.batch_size)
