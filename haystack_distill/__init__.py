"""Import components without the long path; they are defined where Haystack's YAML loader may import them from."""

import logging
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from haystack_integrations.components.distill import *  # noqa: F403

# What the engine logs goes where logs of Haystack's integrations go: an app sets handlers, level and JSON there.
logging.getLogger(__name__).parent = logging.getLogger("haystack_integrations")


def __getattr__(name: str) -> Any:
    """Look a component up when it is asked for, so that the engine alone needs no Haystack."""
    from haystack_integrations.components import distill

    return getattr(distill, name)


def __dir__() -> list[str]:
    from haystack_integrations.components import distill

    return dir(distill)
