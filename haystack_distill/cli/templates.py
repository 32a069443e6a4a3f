"""The pipelines of this package as files: those of an installed one lie in it, those of a clone at its top."""

from pathlib import Path

_INSIDE, _CLONE = Path(__file__).with_name("pipelines"), Path(__file__).parents[2] / "pipelines"
TEMPLATES = _INSIDE if _INSIDE.is_dir() else _CLONE


def template(name: str) -> Path:
    """The YAML of a pipeline, such as `indexing`."""
    return TEMPLATES / f"{name}.yaml"
