"""Components as dictionaries, by Haystack's own functions, and what they are made with."""

import inspect
from collections.abc import Iterable, Sequence
from copy import deepcopy
from dataclasses import fields
from types import UnionType
from typing import TYPE_CHECKING, Any, TypeVar, get_args

from haystack import default_from_dict, default_to_dict
from haystack.core.component import Component
from haystack.core.serialization import (
    component_from_dict,
    component_to_dict,
    generate_qualified_class_name,
    import_class_by_name,
)
from haystack.utils import deserialize_callable, serialize_callable

from haystack_integrations.components.distill.stores.known import kind_named

WATCHING = {"report_to", "callbacks"}
"""Init parameters of components that train, on which no result depends."""

T = TypeVar("T", bound="Serialisable")


class Serialisable:
    """A component that keeps each of its init parameters under the parameter's name."""

    if TYPE_CHECKING:  # for what `keep_parameters` sets

        def __getattr__(self, name: str) -> Any: ...

    def keep_parameters(self, given: dict[str, Any], *, positive: Iterable[str] = ()) -> None:
        """
        Keep what `__init__` was given; a number as what it is declared to be, for YAML 1.1 reads 1e-5 as a text.

        :param given: `locals()`, at the beginning of `__init__`.
        :param positive: Parameters that must be at least 1, unless they are None.
        :raises ValueError: If one of these is lower.
        """
        for name, parameter in inspect.signature(self.__init__).parameters.items():  # type: ignore[misc]
            setattr(self, name, _as_declared(given[name], parameter.annotation))
        for name in positive:
            value = getattr(self, name)
            if value is not None and value < 1:
                msg = f"{name} must be at least 1, not {value}."
                raise ValueError(msg)

    def parameters_of(self, settings: type) -> dict[str, Any]:
        """The init parameters that are also fields of a dataclass, such as the settings of a job."""
        names = {field.name for field in fields(settings)} & set(inspect.signature(self.__init__).parameters)  # type: ignore[misc]
        return {name: getattr(self, name) for name in names}

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
        data["init_parameters"] = {name: _restored(value, name) for name, value in parameters.items()}
        return default_from_dict(cls, data)


def _restored(value: Any, name: str) -> Any:
    """Components in lists and under names, which Haystack leaves as they are."""
    if isinstance(value, list):
        return [_item(item, name) for item in value]
    if isinstance(value, dict) and "type" not in value:
        return {key: _item(item, key) for key, item in value.items()}
    return value


def _item(value: Any, name: str) -> Any:
    if not isinstance(value, dict) or not {"type", "init_parameters"} <= value.keys():
        return value
    return component_from_dict(import_class_by_name(value["type"]), value, name)


def _as_declared(value: Any, declared: Any) -> Any:
    """A number as the int or float that is declared, unless a text may stand in its place."""
    kinds = get_args(declared) if isinstance(declared, UnionType) else (declared,)
    number = next((kind for kind in kinds if kind in {int, float}), None)
    return value if number is None or value is None or str in kinds else number(value)


def _plain(value: Any, name: str) -> Any:
    """What `default_to_dict` leaves as it is: a component may lack `to_dict`, and functions have names."""
    if isinstance(value, list):
        return [_plain(item, name) for item in value]
    if isinstance(value, Component):
        return component_to_dict(value, name)
    if isinstance(value, dict):
        return {key: _plain(one, key) for key, one in value.items()}
    if isinstance(value, type):
        return generate_qualified_class_name(value)
    if callable(value):
        return serialize_callable(value)
    if hasattr(value, "on_train_begin"):
        msg = (
            f"The {type(value).__name__} among the callbacks can't be written into YAML, or handed on by a loop: give "
            "its class instead."
        )
        raise ValueError(msg)
    return value


def named_callables(given: Sequence[Any] | None) -> list[Any]:
    """Functions and classes, of which YAML gives the import paths."""
    return [deserialize_callable(one) if isinstance(one, str) else one for one in given or []]


def without_names(content: Any) -> Any:
    """What `to_dict` gives, without what would keep a killed run from going on: random names, and who watches."""
    if isinstance(content, list):
        return [without_names(item) for item in content]
    if not isinstance(content, dict):
        return content
    random_name = kind_named(str(content.get("type", ""))).random_setting
    parameters = {key: without_names(value) for key, value in content.items() if key not in WATCHING}
    if random_name:
        parameters["init_parameters"] = {**parameters["init_parameters"], random_name: None}
    return parameters
