"""Document stores: how each is read in pages, how it ranks, and what a component needs of it."""

from haystack_integrations.components.distill.stores.base import store_of
from haystack_integrations.components.distill.stores.embedder_settings import EmbedderSettings
from haystack_integrations.components.distill.stores.opening import index_of, teacher_of
from haystack_integrations.components.distill.stores.ranking import (
    Ranking,
    UnknownRankingError,
    ranking_of,
    similarity_of,
    vectors_of,
)
from haystack_integrations.components.distill.stores.reading import embedded_text, is_embedded, pages_of, rows_of

__all__ = [
    "EmbedderSettings",
    "Ranking",
    "UnknownRankingError",
    "embedded_text",
    "index_of",
    "is_embedded",
    "pages_of",
    "ranking_of",
    "rows_of",
    "similarity_of",
    "store_of",
    "teacher_of",
    "vectors_of",
]
