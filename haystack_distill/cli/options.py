"""
Options that commands share, in the groups that help shows, and the closed sets of what an option may be.

The sets are the engine's tables. Tables that cost no time to import are read here, and help lists them.
"""

from collections.abc import Callable
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal, TypeAlias

import typer

from haystack_distill.files.packages import extra_for
from haystack_distill.generation.listwise import SIGNAL as LISTWISE
from haystack_distill.generation.writing import PROMPTS
from haystack_distill.serving.backends import BACKENDS, EXPORTS
from haystack_distill.teachers.heads import METHODS
from haystack_distill.teachers.signals import SIGNALS

if TYPE_CHECKING:
    Mode: TypeAlias = str
    Method: TypeAlias = str
    Backend: TypeAlias = str
    Precision: TypeAlias = str
    SignalName: TypeAlias = str
else:
    Mode = Literal[tuple(PROMPTS)]
    Method = Literal[tuple(METHODS)]
    Backend = Literal[tuple(BACKENDS)]
    Precision = Literal[tuple(dict.fromkeys(name for backend in BACKENDS.values() for name in backend.precisions))]
    SignalName = Literal[(*SIGNALS, LISTWISE)]

teacher, candidates, training, running = (
    partial(typer.Option, rich_help_panel=group) for group in ("Teacher", "Candidates", "Training", "Running")
)


def one_of(module: str, table: str) -> Callable[[str], str]:
    """Parse an option whose table stands in a module that takes seconds to import: only a given one is looked up."""

    def parse(value: str) -> str:
        try:
            names = getattr(import_module(module), table)
        except ModuleNotFoundError as error:
            raise typer.BadParameter(extra_for(error) or str(error)) from error
        if value not in names:
            msg = f"{value!r} is not one of {', '.join(map(repr, names))}."
            raise typer.BadParameter(msg)
        return value

    return parse


Model = Annotated[str, typer.Option(help="The encoder of the documents: folder or hub name.")]
Output = Annotated[Path, typer.Option(help="The folder to make; it must not exist.")]
Exports = Annotated[
    list[str] | None,
    typer.Option(
        parser=one_of("haystack_distill.serving.backends", "EXPORTS"),
        metavar="NAME",
        help=f"Export it too: {', '.join(EXPORTS)}; can be given again.",
    ),
]
STORE = "A YAML with `type` and `init_parameters` of a document store that holds the folder's documents, embedded; "
Store = Annotated[
    Path | None, typer.Option(exists=True, dir_okay=False, help=f"{STORE}by default they are embedded into memory.")
]
Reader = Annotated[
    str | None,
    teacher(help="The model that labels: folder, hub name or GGUF file; default: the judgments are the teacher."),
]
Signal = Annotated[SignalName, teacher(help="What is read out of the reader, see docs/teachers.md.")]
ApiBaseUrl = Annotated[
    str | None, teacher(help="The URL of an OpenAI-compatible server that has the reader; its key: OPENAI_API_KEY.")
]
Heads = Annotated[str | None, teacher(help="For the signal heads: what `haystack-distill heads` wrote.")]
Dtype = Annotated[
    str | None,
    teacher(
        parser=one_of("haystack_distill.teachers.readers", "DTYPES"), metavar="NAME", help="Of the reader, as bfloat16."
    ),
]
Workers = Annotated[int, running(help="Processes that work, through Ray; docs/scale.md.", min=1)]
Seed = Annotated[int, running(help="The seed of what is drawn at random.")]
Progress = Annotated[bool, running(help="Show progress bars.")]
