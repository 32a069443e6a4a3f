"""Spans for Haystack's tracer: what a retriever spends its time on."""

from contextlib import AbstractContextManager, nullcontext
from typing import Any

from haystack import tracing
from haystack.tracing.tracer import NullTracer


def span(name: str, **tags: Any) -> AbstractContextManager[Any]:
    """A span below the one of the component that runs; its name and its tags begin with `haystack_distill.`."""
    if isinstance(tracing.tracer.actual_tracer, NullTracer):  # where nobody listens, it would cost microseconds
        return nullcontext()
    named = {f"haystack_distill.{tag}": value for tag, value in tags.items()}
    parent = tracing.tracer.current_span()
    return tracing.tracer.trace(f"haystack_distill.{name}", tags=named, parent_span=parent)
