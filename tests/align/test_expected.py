"""How long an alignment is said to take."""

import itertools

import pytest

from haystack_distill.align import expected
from haystack_distill.students.bi_encoder import BiEncoder
from tests.conftest import sentences


@pytest.fixture
def slow(monkeypatch, bert):
    """A teacher that takes a tenth of a second for each of the timed texts."""
    clock = itertools.cycle([0.0, 0.1 * expected.TIMED])
    monkeypatch.setattr(expected.time, "perf_counter", lambda: next(clock))
    return BiEncoder.load(bert, device="cpu")


@pytest.mark.parametrize(
    ("settings", "learning"),
    [
        # Each of 1000 texts goes twice through one of six layers, three times as long as the teacher goes forward.
        ({"layers": 1, "epochs": 2}, 2 * 1000 * 0.1 * 3 / 6),
        ({"layers": 0, "epochs": 2}, 2 * 1000 * 0.1 * 3 * 0.3 / 6),
        ({"layers": 0, "solved": True}, 0.0),
    ],
)
def test_minutes(slow, settings, learning):
    said = expected.expected_minutes(slow, sentences(200), 1000, **settings)
    assert said == pytest.approx((expected.AROUND + 1000 * 0.1 + learning) / 60)
