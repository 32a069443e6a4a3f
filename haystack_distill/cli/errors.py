"""What users can mend is one sentence, and a try that failed leaves only what the next one gains from."""

import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import typer
import yaml

from haystack_distill.cli.shared import say
from haystack_distill.files.layout import RUN
from haystack_distill.files.packages import extra_for
from haystack_distill.files.runs import LOCK, workspace_of

INTEGRATION = re.compile(r"haystack_integrations\.(components\.\w+|document_stores)\.\w+")


to_close: list[Any] = []
"""Stores that a command opened: one that lies in files is locked until it is closed."""


@contextmanager
def explained(output: Path | None = None) -> Iterator[None]:
    """
    Say what a user can mend in one sentence and end with exit code 1; anything else stays a traceback.

    :param output: What the command makes, if the same command goes on where it was stopped. Its hidden folders stay
        where something of worth is in them, and the one with the vectors of documents goes when all is done.
    """
    try:
        yield
    except KeyboardInterrupt:
        _tidy(output)
        say(f"Stopped.{' The same command goes on where it was.' if output else ''}", error=True)
        raise typer.Exit(130) from None
    except Exception as error:
        kept = "" if isinstance(error, BlockingIOError) else _tidy(output)  # another process is at work there
        sentence = _sentence(error)
        if sentence is None:
            raise
        say(f"Error: {sentence}", error=True)
        if kept:
            say(f"What was computed is kept in {kept}: the next try with this --output is sooner there.", error=True)
        raise typer.Exit(1) from None
    finally:
        while to_close:
            to_close.pop().close()
    if output:
        shutil.rmtree(vectors_of(output), ignore_errors=True)


def vectors_of(output: Path) -> Path:
    """Where the vectors of documents are kept until a command has done its work: a hidden neighbour of its output."""
    return workspace_of(output.with_name(f"{output.name}.index"))


def _tidy(output: Path | None) -> str:
    """Remove hidden folders with nothing of worth in them, and name those that stay."""
    if output is None or output.exists():
        return ""
    kept = []
    for folder in (workspace_of(output), vectors_of(output)):
        files = [path.relative_to(folder) for path in folder.rglob("*") if path.is_file()]
        # Neither what says that a run was begun nor its copies of an index are of use to the next try.
        if any(file.name not in {RUN, LOCK} and not file.parts[0].startswith("index") for file in files):
            kept.append(str(folder))
        else:
            shutil.rmtree(folder, ignore_errors=True)
    return " and ".join(kept)


def _sentence(error: BaseException) -> str | None:
    """What to say of an error; None for one that no user can mend."""
    from haystack.core import errors
    from haystack.core.super_component.super_component import InvalidMappingTypeError, InvalidMappingValueError
    from haystack.document_stores.errors import DocumentStoreError
    from haystack.errors import FilterError

    while isinstance(error, errors.PipelineRuntimeError) and error.__cause__:
        error = error.__cause__
    of_haystack: tuple[type[Exception], ...]
    of_haystack = (errors.SerializationError, errors.DeserializationError, errors.PipelineError, errors.ComponentError)
    of_haystack += (InvalidMappingTypeError, InvalidMappingValueError, DocumentStoreError, FilterError)
    mended = (ValueError, TypeError, OSError, ImportError, yaml.YAMLError, *of_haystack)
    if not isinstance(error, mended):
        return None
    if extra := extra_for(error):
        return extra
    if module := _missing_integration(error):
        package = f"{module.rpartition('.')[2].replace('_', '-')}-haystack"
        return f"{module} is not there: correct its name, or install it with `pip install {package}`."
    sentence = str(error)
    if isinstance(error, errors.DeserializationError) and error.__cause__:  # it shows all of the component first
        sentence = f"{sentence.partition(' with the following')[0]}: {error.__cause__}."
    return " ".join(sentence.split())


def _missing_integration(error: BaseException | None) -> str | None:
    """The module of an integration that is not installed; their packages are all called alike."""
    wanted = None
    while error is not None:
        wanted = INTEGRATION.search(str(error)) or wanted
        if isinstance(error, ModuleNotFoundError) and str(error.name).startswith("haystack_integrations") and wanted:
            return wanted[0]
        error = error.__cause__
    return None
