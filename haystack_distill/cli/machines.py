"""`--json` for every command: what it found as JSON on stdout, and all that it says to people on stderr."""

import inspect
import json
from collections.abc import Callable
from functools import wraps
from typing import Annotated, Any

import typer

from haystack_distill.cli import shared

AsJson = Annotated[bool, typer.Option("--json", help="Print the result as JSON, for machines.")]


class Failed(typer.Exit):
    """A result that is not what was hoped for: exit code 1."""

    def __init__(self, result: dict[str, Any]) -> None:
        super().__init__(1)
        self.result = result


def with_json(command: Callable[..., Any]) -> Callable[..., None]:
    """A command that prints what it returns if it is asked for it."""

    @wraps(command)
    def run(*, as_json: bool = False, **given: Any) -> None:
        shared.people_read_stderr = as_json
        failed = None
        try:
            result = command(**given)
        except Failed as error:
            failed, result = error, error.result
        if as_json:
            typer.echo(json.dumps(result, default=plain, ensure_ascii=False))
        if failed:
            raise failed

    signature = inspect.signature(command)
    option = inspect.Parameter("as_json", inspect.Parameter.KEYWORD_ONLY, default=False, annotation=AsJson)
    run.__signature__ = signature.replace(  # type: ignore[attr-defined]  # typer reads it
        parameters=[*signature.parameters.values(), option]
    )
    run.__annotations__ = {**command.__annotations__, "as_json": AsJson}
    return run


def plain(value: Any) -> Any:
    """What JSON has no form for: Haystack's own objects as dictionaries, others as texts."""
    return value.to_dict() if hasattr(value, "to_dict") else str(value)
