# SPDX-FileCopyrightText: 2026-present haystack-distill contributors
#
# SPDX-License-Identifier: Apache-2.0

"""`haystack-distill compare-replies`: a page on which people judge replies blindly, and what they said."""

from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

console = Console()


def compare_replies(
    replies: Annotated[
        list[Path] | None, typer.Argument(help="Two or more .jsonl files: _id, context, reply; named as the system.")
    ] = None,
    output: Annotated[Path, typer.Option(help="The page to write.")] = Path("compare.html"),
    contexts: Annotated[int, typer.Option(help="How many contexts at most.")] = 100,
    seed: Annotated[int, typer.Option(help="Of the order of contexts and systems.")] = 0,
    verdicts: Annotated[
        list[Path] | None, typer.Option(help="What the page saved, to be unblinded; once for each judge.")
    ] = None,
) -> None:
    """Write a page that hides which system said what, or with --verdicts print what the judges said."""
    from haystack_distill.cli import _explained
    from haystack_distill.responses.judging import read_replies, unblinded, write_sheet

    if verdicts:
        print_verdicts(_explained(lambda: unblinded(verdicts)))
        return
    written = _explained(
        lambda: write_sheet([read_replies(file) for file in replies or []], output, most=contexts, seed=seed)
    )
    console.print(f"{output} asks about {written} contexts; open it in a browser.", highlight=False, soft_wrap=True)
    console.print(
        "What it saves is unblinded by `haystack-distill compare-replies --verdicts verdicts.json`.",
        highlight=False,
        soft_wrap=True,
    )


def print_verdicts(result: dict[str, Any]) -> None:
    """
    Print the unblinded result.

    :param result: What `unblinded` returned.
    """
    table = Table(title=f"{result['contexts']} contexts, {result['judges']} judge(s): % and 95 % intervals")
    for column in ("system", "sensible", "specific", "SSA"):
        table.add_column(column, justify="left" if column == "system" else "right")
    for name, figures in result["systems"].items():
        table.add_row(name, *(_percent(figures[measure], "") for measure in ("sensible", "specific", "ssa")))
    first = next(iter(result["systems"]))
    for name, figures in result["differences"].items():
        table.add_row(
            f"{name} - {first}", *(_percent(figures[measure], "+") for measure in ("sensible", "specific", "ssa"))
        )
    console.print(table)


def _percent(value: dict[str, float], sign: str) -> str:
    low, high = (f"{100 * value[end]:{sign}.0f}" for end in ("low", "high"))
    return f"{100 * value['value']:{sign}.0f} ({low} to {high})"
