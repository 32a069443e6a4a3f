"""A tracer that remembers, with parents as OpenTelemetry's has them: in the context of a thread or a task."""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any

from haystack import tracing
from haystack.tracing import Span, Tracer

_open: ContextVar["Spied | None"] = ContextVar("open", default=None)


@dataclass
class Spied(Span):
    """A span, and the name of the one that was open around it and given as its parent."""

    name: str
    tags: dict[str, Any] = field(default_factory=dict)
    parent: str | None = None

    def set_tag(self, key: str, value: Any) -> None:
        self.tags[key] = value


class _Spy(Tracer):
    def __init__(self) -> None:
        self.spans: list[Spied] = []

    @contextmanager
    def trace(self, operation_name, tags=None, parent_span=None) -> Iterator[Spied]:
        assert parent_span is _open.get(), "the parent that is named is the one that is open"
        span = Spied(operation_name, dict(tags or {}), getattr(parent_span, "name", None))
        self.spans.append(span)
        before = _open.set(span)
        try:
            yield span
        finally:
            _open.reset(before)

    def current_span(self) -> Span | None:
        return _open.get()


@contextmanager
def spied_on() -> Iterator[list[Spied]]:
    """The spans of a block, in the order in which they began."""
    spy = _Spy()
    tracing.enable_tracing(spy)
    try:
        yield spy.spans
    finally:
        tracing.disable_tracing()


def own(spans: list[Spied]) -> list[tuple[str, str, str | None]]:
    """Those of this package: name, who encoded or searched, and parent."""
    start = "haystack_distill."
    return [
        (one.name.removeprefix(start), *(value for tag, value in one.tags.items() if tag.startswith(start)), one.parent)
        for one in spans
        if one.name.startswith(start)
    ]
