"""What several components refuse."""

from typing import Any


def check_query(query: Any, component: str, purpose: str) -> None:
    """
    Refuse a query without text.

    :param component: Who asks.
    :param purpose: What it needs some text for.
    :raises ValueError: If the query is empty, or no text.
    """
    if not isinstance(query, str) or not query.strip():
        msg = f"The query is empty: {component} needs some text to {purpose}."
        raise ValueError(msg)


def check_top_k(top_k: int | None) -> None:
    """Refuse a number of documents below 1, with a ValueError; None leaves it open."""
    if top_k is not None and top_k < 1:
        msg = f"top_k must be at least 1, not {top_k}."
        raise ValueError(msg)


def check_pace(timeout: float, requests_per_minute: float | None) -> None:
    """Refuse, with a ValueError, a pace at which nothing can be asked; None sets no limit."""
    if timeout <= 0 or (requests_per_minute is not None and requests_per_minute <= 0):
        msg = "timeout and requests_per_minute must be above 0."
        raise ValueError(msg)
