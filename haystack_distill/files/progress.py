"""The bars of work that takes long: each has a name and says how long it will take."""

import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial

import numpy as np
from tqdm import tqdm

from haystack_distill.files.bulk import bulk, one_result

PARTS = 2
"""Batches between two steps of a bar."""


@contextmanager
def progress_bar(what: str, total: int, done: int, *, shown: bool) -> Iterator[Callable[[int], None]]:
    """
    Show on stderr how far some work is, and how long it will take.

    :param done: Where it was left, if it goes on after a kill.
    :returns: To be called with how much is done.
    """
    every = 0.1 if sys.stderr.isatty() else 10.0  # a file that is read later needs fewer lines
    with tqdm(desc=what, total=total, initial=done, disable=not shown, mininterval=every, dynamic_ncols=True) as bar:
        yield lambda count: bar.update(count - bar.n)


def with_bar(
    make: Callable[[], Callable[[list[str]], np.ndarray]],
    texts: Sequence[str],
    what: str,
    batch_size: int,
    *,
    shown: bool,
    num_workers: int = 1,
) -> np.ndarray:
    """
    Encode texts a few batches at a time, the longest first, so that the texts of a batch are about equally long.

    :param make: Makes what encodes, in every worker; see `files.bulk`.
    :param what: The name of the bar.
    :returns: `[texts, dim]`, float32.
    """
    order = sorted(range(len(texts)), key=lambda number: -len(texts[number]))
    size, found = PARTS * batch_size, []
    parts = ([texts[number] for number in order[start : start + size]] for start in range(0, max(1, len(texts)), size))
    with progress_bar(what, len(texts), 0, shown=shown) as show:
        for part in bulk(parts, partial(one_result, make), num_workers):
            found.append(part)
            show(min(len(found) * size, len(texts)))
    together = np.concatenate(found).astype(np.float32, copy=False)
    vectors = np.empty_like(together)
    vectors[order] = together
    return vectors
