# SPDX-FileCopyrightText: 2026-present haystack-distill contributors
#
# SPDX-License-Identifier: Apache-2.0

"""Document stores: how each is read in pages, how it ranks, and what a component needs of it."""

from haystack_integrations.components.distill.stores.opening import index_of, init_parameters, teacher_of
from haystack_integrations.components.distill.stores.ranking import (
    Ranking,
    UnknownRankingError,
    ranking_of,
    similarity_of,
    store_of,
)
from haystack_integrations.components.distill.stores.reading import embedded_text, is_embedded, pages_of, rows_of

__all__ = [
    "Ranking",
    "UnknownRankingError",
    "embedded_text",
    "index_of",
    "init_parameters",
    "is_embedded",
    "pages_of",
    "ranking_of",
    "rows_of",
    "similarity_of",
    "store_of",
    "teacher_of",
]
