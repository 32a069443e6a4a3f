"""Addresses of servers, as they may be written down."""

import pytest

from haystack_distill.files.addresses import without_secrets


@pytest.mark.parametrize(
    ("given", "written"),
    [
        ("https://me:pa@ss@host:8000/v1/?api-key=1#x", "https://host:8000/v1/"),
        ("http://[::1]:8000/v1", "http://[::1]:8000/v1"),
        ("http://localhost", "http://localhost"),
    ],
)
def test_an_address_is_written_without_what_opens_it(given, written):
    assert without_secrets(given) == written
