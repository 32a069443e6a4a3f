"""Import components without the long path; they are defined where Haystack's YAML loader may import them from."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from haystack_integrations.components.distill import *  # noqa: F403


def __getattr__(name: str) -> Any:
    """Look a component up when it is asked for, so that the engine alone needs no Haystack."""
    from haystack_integrations.components import distill

    return getattr(distill, name)


def __dir__() -> list[str]:
    from haystack_integrations.components import distill

    return dir(distill)
