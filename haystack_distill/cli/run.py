"""`haystack-distill run`: a pipeline YAML with the inputs that it names."""

import json
import sys
from pathlib import Path
from types import UnionType
from typing import Annotated, Any, Union, get_args, get_origin

import typer
import yaml
from rich.console import Console

from haystack_distill.cli import shared
from haystack_distill.cli.errors import explained
from haystack_distill.cli.machines import plain


def run(
    pipeline: Annotated[Path, typer.Argument(help="A pipeline YAML with inputs: and outputs:.")],
    inputs: Annotated[list[str] | None, typer.Argument(help="Inputs, as query='how do I ...' or top_k=3.")] = None,
) -> dict[str, Any]:
    """
    Run a pipeline YAML with the inputs that it names.

    Examples:
      haystack-distill run pipelines/query.yaml query='How do I merge two dictionaries?' top_k=3
      haystack-distill run pipelines/indexing.yaml documents=texts
    """
    with explained():
        from haystack.components.writers import DocumentWriter

        from haystack_integrations.components.distill.pipelines import load_pipeline
        from haystack_integrations.components.distill.stores.known import kind_of

        loaded = load_pipeline(pipeline)
        try:
            sockets = loaded.__haystack_input__._sockets_dict  # type: ignore[attr-defined]  # set by the decorator
            result = loaded.run(**_values(inputs or [], sockets))
            for _, part in loaded.pipeline.walk():
                if isinstance(part, DocumentWriter):
                    kind_of(part.document_store).save(part.document_store)
        finally:
            loaded.pipeline.close()
    if not shared.people_read_stderr:
        _show(result)
    return result


def _show(result: dict[str, Any]) -> None:
    """Print a result: to people what an alignment proved as a table, all else as JSON."""
    metrics = result.get("metrics")
    if sys.stdout.isatty() and isinstance(metrics, dict) and "share_of_teacher" in metrics:
        shared.show_aligned(metrics, result.get("model_path", "its folder"))
        return
    Console().print_json(json.dumps(result, default=plain))


def _values(inputs: list[str], sockets: dict[str, Any]) -> dict[str, Any]:
    """What was typed as name=value. Where a text is wanted it is one: a query may look like a number, or like YAML."""
    values = {}
    for typed in inputs:
        name, equals, text = typed.partition("=")
        if not equals or name not in sockets:
            fault = "has no value" if not equals else "is not one of the pipeline's"
            msg = f"The input {typed!r} {fault}: write it as name=value; the names are {', '.join(sockets)}."
            raise ValueError(msg)
        kinds = _kinds(sockets[name].type)
        value = text if str in kinds else yaml.safe_load(text)
        if isinstance(value, str) and "Document" in str(sockets[name].type):
            from haystack_distill.cli.documents import read_documents

            value = read_documents(Path(value))
        if not isinstance(value, kinds):
            wanted = " or ".join(kind.__name__ for kind in kinds if kind is not type(None))
            msg = f"The input {typed!r} does not suit the pipeline: {name} takes {wanted}, not {type(value).__name__}."
            raise ValueError(msg)
        values[name] = value
    return values


def _kinds(annotation: Any) -> tuple[type, ...]:
    """The classes of the values that a socket takes."""
    parts = get_args(annotation) if get_origin(annotation) in {Union, UnionType} else (annotation,)
    kinds = tuple(get_origin(part) or part for part in parts)
    if not all(isinstance(kind, type) for kind in kinds):
        return (object,)  # such as Any
    return (*kinds, int) if float in kinds else kinds
