"""What tests of several components need."""

import pytest


@pytest.fixture(scope="session")
def other(make_encoder) -> str:
    """A new encoder: on this little corpus neither random one is right, so tests don't count on which is better."""
    return make_encoder("bert", seed=8)
