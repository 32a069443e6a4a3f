"""`haystack-distill compare-replies`: a page on which people judge replies blindly, and what they said."""

from pathlib import Path
from typing import Annotated, Any

import typer
from rich.markup import escape

from haystack_distill.cli import options
from haystack_distill.cli.errors import explained
from haystack_distill.cli.shared import say, show, table_of


def compare_replies(
    replies: Annotated[
        list[Path] | None, typer.Argument(help="Two or more .jsonl files: _id, context, reply; named as the system.")
    ] = None,
    output: Annotated[Path, typer.Option(help="The page to write.")] = Path("compare.html"),
    contexts: Annotated[int, typer.Option(help="How many contexts at most.")] = 100,
    verdicts: Annotated[
        list[Path] | None, typer.Option(help="What the page saved, to be unblinded; once for each judge.")
    ] = None,
    seed: options.Seed = 0,
) -> dict[str, Any]:
    """
    Write a page that hides which system said what, or with --verdicts print what the judges said.

    Examples:
      haystack-distill compare-replies generator.jsonl retriever.jsonl --output compare.html
      haystack-distill compare-replies --verdicts first-judge.json --verdicts second-judge.json
    """
    with explained():
        from haystack_distill.responses.judging import read_system, unblinded, write_sheet

        if verdicts:
            result = unblinded(verdicts)
            show(_table(result))
            return result
        written = write_sheet([read_system(file) for file in replies or []], output, most=contexts, seed=seed)
    say(f"{output} asks about {written} contexts; open it in a browser.")
    say("What it saves is unblinded by `haystack-distill compare-replies --verdicts verdicts.json`.")
    return {"output": str(output), "contexts": written}


def _table(result: dict[str, Any]) -> Any:
    """What `unblinded` returned."""
    measures = ("sensible", "specific", "ssa")
    table = table_of("system", "sensible", "specific", "SSA")
    table.title = f"{result['contexts']} contexts, {result['judges']} judge(s): % and 95 % intervals"
    for name, figures in result["systems"].items():
        table.add_row(escape(name), *(_percent(figures[measure], "") for measure in measures))
    first = next(iter(result["systems"]))
    for name, figures in result["differences"].items():
        table.add_row(escape(f"{name} - {first}"), *(_percent(figures[measure], "+") for measure in measures))
    return table


def _percent(value: dict[str, float], sign: str) -> str:
    low, high = (f"{100 * value[end]:{sign}.0f}" for end in ("low", "high"))
    return f"{100 * value['value']:{sign}.0f} ({low} to {high})"
