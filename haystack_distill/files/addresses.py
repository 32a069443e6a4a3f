"""Addresses of servers as they may be written down."""

from urllib.parse import urlsplit, urlunsplit


def without_secrets(url: str) -> str:
    """An address without a user, a password, or what stands behind `?`, where some servers are given a key."""
    parts = urlsplit(url)
    return urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path, "", ""))
