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
    output: Annotated[
        Path | None, typer.Option(help="The page to write (compare.html), or with --judge the folder (preferences).")
    ] = None,
    contexts: Annotated[int, typer.Option(help="How many contexts at most.")] = 100,
    verdicts: Annotated[
        list[Path] | None, typer.Option(help="What the page saved, to be unblinded; once for each judge.")
    ] = None,
    judge: Annotated[
        str | None, typer.Option(help="Ask this chat model instead of people: folder, hub name, or name on the server.")
    ] = None,
    api_base_url: Annotated[
        str | None, typer.Option(help="The OpenAI-compatible server of the judge; its key: OPENAI_API_KEY.")
    ] = None,
    seed: options.Seed = 0,
) -> dict[str, Any]:
    """
    Write a page that hides which system said what, or with --verdicts print what the judges said.

    With --judge a chat model says which of two replies it prefers, in both orders; --output is then a folder.

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
        systems = [read_system(file) for file in replies or []]
        if judge:
            found = _judged(systems, judge, api_base_url, output or Path("preferences"), contexts, seed)
            show(_preferences(found, judge))
            return found
        page = output or Path("compare.html")
        written = write_sheet(systems, page, most=contexts, seed=seed)
    say(f"{page} asks about {written} contexts; open it in a browser.")
    say("What it saves is unblinded by `haystack-distill compare-replies --verdicts verdicts.json`.")
    return {"output": str(page), "contexts": written}


def _judged(
    systems: list[Any], judge: str, api_base_url: str | None, output: Path, contexts: int, seed: int
) -> dict[str, Any]:
    from haystack_distill.cli.augment import writer_of
    from haystack_distill.responses.preferring import preferences
    from haystack_integrations.components.distill.generative_augmenter import GenerativeAugmenter

    writer = writer_of(judge, api_base_url)
    if "model" in writer:
        writer["sampling"] = {"max_new_tokens": 4, "temperature": 0.0}
    generator = GenerativeAugmenter(output=str(output), mode="responses", **writer).writer()
    return preferences(systems, generator, output, most=contexts, seed=seed)


def _preferences(found: dict[str, Any], judge: str) -> Any:
    """What `preferences` returned."""
    table = table_of("system", f"preferred over {escape(found['first'])}", "orders agree", "shown first", "unclear")
    table.title = f"{found['contexts']} contexts, judged by {escape(judge)}: % and 95 % intervals"
    for name, figures in found["over_first"].items():
        preferred = {"value": figures["preferred"], "low": figures["low"], "high": figures["high"]}
        rest = (f"{100 * figures[key]:.0f}" for key in ("consistent", "first_shown", "unclear"))
        table.add_row(escape(name), _percent(preferred, ""), *rest)
    return table


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
