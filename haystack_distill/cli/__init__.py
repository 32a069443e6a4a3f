"""
The command line: every command builds the components that a YAML would name, and runs them.

A command is one file, named as it is. What takes long to import, Haystack among it, is imported inside the commands, so
that help and the answer to a mistyped option come at once.
"""

import logging
import os
from importlib import metadata
from typing import Annotated

import typer

from haystack_distill.cli.align import align
from haystack_distill.cli.augment import augment
from haystack_distill.cli.calibrate import calibrate
from haystack_distill.cli.check import check
from haystack_distill.cli.compare import compare
from haystack_distill.cli.compare_replies import compare_replies
from haystack_distill.cli.distill import distill
from haystack_distill.cli.evaluate import evaluate
from haystack_distill.cli.export import export
from haystack_distill.cli.export_corpus import export_corpus
from haystack_distill.cli.fuse import fuse
from haystack_distill.cli.heads import heads
from haystack_distill.cli.init import init
from haystack_distill.cli.judgments import judgments
from haystack_distill.cli.label import label
from haystack_distill.cli.machines import with_json
from haystack_distill.cli.push import push
from haystack_distill.cli.reindex import reindex
from haystack_distill.cli.run import run

app = typer.Typer(no_args_is_help=True, pretty_exceptions_enable=False)
for panel, commands in {
    "Begin: your store and your encoder": (init, check),
    "Data: what is learnt from": (judgments, export_corpus, augment, label, heads),
    "Models: made and measured": (align, distill, fuse, evaluate, compare_replies),
    "Use: what was made serves": (export, push, calibrate, run, compare, reindex),
}.items():
    for command in commands:
        app.command(command.__name__.replace("_", "-"), rich_help_panel=panel)(with_json(command))

LEVELS = dict.fromkeys(("sentence_transformers", "transformers", "httpx", "faiss", "datasets"), logging.WARNING)
LEVELS |= {"haystack.utils.type_serialization": logging.CRITICAL}  # it logs the traceback of what an error says


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(metadata.version("haystack-distill"))
        raise typer.Exit


@app.callback()
def main(
    version: Annotated[  # noqa: ARG001 - its callback answers
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version.")
    ] = False,
) -> None:
    """Move what a slow model knows into the retriever you already have."""
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    for name, level in LEVELS.items():
        logging.getLogger(name).setLevel(level)
    os.environ.setdefault("HAYSTACK_LOGGING_IGNORE_STRUCTLOG", "true")  # it would print each line again, as JSON
    os.environ.setdefault("HF_HUB_VERBOSITY", "error")  # without a network it would name every request
