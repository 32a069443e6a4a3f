"""What is missing is named with the extra that brings it."""

from importlib import metadata

import pytest

from haystack_distill.files.packages import extra_for

REQUIRES = [
    "haystack-ai>=3.4",
    "faiss-cpu>=1.9; extra == 'train'",
    "torch>=2.6; extra == 'train'",
    "torch>=2.6; extra == 'dev'",
    "pytest>=8; extra == 'dev'",
    "ruff>=0.1; extra == 'dev'",
    'ray[data]>=2.40; extra == "ray"',
]


@pytest.mark.parametrize(
    ("module", "extra"),
    [("torch.nn", "train"), ("faiss", "train"), ("pytest", "dev"), ("haystack", None), ("nowhere", None)],
)
def test_the_smallest_extra(module, extra, monkeypatch):
    monkeypatch.setattr(metadata, "requires", lambda _: REQUIRES)
    sentence = extra_for(ModuleNotFoundError("No module", name=module))
    root = module.partition(".")[0]
    assert sentence == (f"{root} is not installed: pip install 'haystack-distill[{extra}]'." if extra else None)


def test_a_cause_counts_and_other_errors_do_not(monkeypatch):
    monkeypatch.setattr(metadata, "requires", lambda _: REQUIRES)
    error = ValueError("x")
    assert extra_for(error) is None
    error.__cause__ = ModuleNotFoundError("No module", name="torch")
    assert "haystack-distill[train]" in extra_for(error)
