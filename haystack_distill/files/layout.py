"""The names of files in the folders that are made here, of models on the hub, and the versions that made them."""

from importlib import metadata

PROVENANCE = "haystack_distill.json"
"""How a model came to be, and for which index."""

METRICS, REPORT, CARD = "metrics.json", "report.html", "README.md"
"""What was measured: for programs, for people, and for a model hub."""

MODULES = "modules.json"
"""Tells a folder that sentence-transformers can load."""

LEARNT = "learnt.safetensors"
"""The marks of the documents that a student was aligned with, and of the sentences that were held out."""

RUN = "run.json"
"""What an unfinished run depends on."""


def hub_name(model: str) -> str:
    """The whole name of a model on the hub: those without an organisation are sentence-transformers' own."""
    return model if "/" in model else f"sentence-transformers/{model}"


def versions() -> dict[str, str]:
    """The versions of the packages that figures depend on."""
    names = ("haystack-distill", "haystack-ai", "sentence-transformers", "transformers", "torch", "numpy")
    return {name: metadata.version(name) for name in names}
