# SPDX-FileCopyrightText: 2026-present haystack-distill contributors
#
# SPDX-License-Identifier: Apache-2.0

"""What a reader gives: a stored document without Haystack's object around it."""

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np

PAGE = 1000
"""Documents a call."""


class Row(NamedTuple):
    """
    A stored document.

    :param id: Its id.
    :param content: Its text.
    :param meta: Its meta data.
    :param vector: Its vector, or None.
    """

    id: str
    content: str | None
    meta: dict[str, Any]
    vector: list[float] | np.ndarray | None


Retried = Callable[[Callable[[], Any]], Any]
"""Calls a function, again if it fails."""

Reader = Callable[[Any, Retried], Iterator[list[Row]]]
"""Reads a store in pages; each call over a connection goes through the second argument."""
