"""Components as dictionaries, by Haystack's own functions."""

import inspect
from copy import deepcopy
from typing import Any, TypeVar

from haystack import default_from_dict, default_to_dict
from haystack.core.component import Component
from haystack.core.serialization import component_from_dict, component_to_dict, import_class_by_name
from haystack.utils import serialize_callable

from haystack_integrations.components.distill.stores.known import kind_named

T = TypeVar("T", bound="Serialisable")


class Serialisable:
    """A component that keeps each of its init parameters under the parameter's name."""

    def to_dict(self) -> dict[str, Any]:
        """Serialise this component: its type and its init parameters."""
        names = inspect.signature(self.__init__).parameters  # type: ignore[misc]
        return default_to_dict(self, **{name: _plain(getattr(self, name), name) for name in names})

    @classmethod
    def from_dict(cls: type[T], data: dict[str, Any]) -> T:
        """
        Restore this component.

        :param data: What `to_dict` returned, perhaps through YAML; it is left as it is.
        """
        data = deepcopy(data)  # some components of Haystack change what they are made from
        parameters = data.get("init_parameters", {})
        data["init_parameters"] = {name: _restored(value) for name, value in parameters.items()}
        return default_from_dict(cls, data)


def _restored(value: Any) -> Any:
    """Named components, which `default_from_dict` leaves as they are."""
    if not (
        isinstance(value, dict) and value and all(isinstance(one, dict) and "type" in one for one in value.values())
    ):
        return value
    return {name: component_from_dict(import_class_by_name(one["type"]), one, name) for name, one in value.items()}


def _plain(value: Any, name: str) -> Any:
    """What `default_to_dict` leaves as it is: a component may lack `to_dict`, and functions have names."""
    if isinstance(value, Component):
        return component_to_dict(value, name)
    if isinstance(value, dict) and any(isinstance(one, Component) for one in value.values()):
        return {key: _plain(one, key) for key, one in value.items()}
    return serialize_callable(value) if callable(value) else value


def without_names(content: Any) -> Any:
    """
    A serialised component without the random names of stores, which would keep a killed run from going on.

    :param content: What `to_dict` returned, or a part of it.
    """
    if isinstance(content, list):
        return [without_names(item) for item in content]
    if not isinstance(content, dict):
        return content
    random_name = kind_named(str(content.get("type", ""))).random_setting
    parameters = {key: without_names(value) for key, value in content.items()}
    if random_name:
        parameters["init_parameters"] = {**parameters["init_parameters"], random_name: None}
    return parameters
