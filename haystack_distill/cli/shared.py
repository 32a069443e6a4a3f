"""What commands share: how they print, and what they find out before anything is embedded."""

import logging
import os
from typing import Any

import typer
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from haystack_distill.evaluation.measures import HEADINGS, MAIN, cells, headline

people_read_stderr = False
"""Whether stdout is for a machine."""


def say(text: str, *, error: bool = False) -> None:
    """Print a line as it is: names may look like markup, and no line is broken."""
    Console(stderr=error or people_read_stderr).print(text, markup=False, highlight=False, soft_wrap=True)


def show(table: Table) -> None:
    """Print a table."""
    Console(stderr=people_read_stderr).print(table)


def plain_table(rows: dict[str, Any]) -> Table:
    """A table of names and values, without a heading."""
    table = Table(show_header=False)
    for name, value in rows.items():
        table.add_row(escape(name), str(value))
    return table


def table_of(*columns: str) -> Table:
    """A table whose first column is text and whose others are figures."""
    table = Table(box=SIMPLE_HEAD)
    for number, column in enumerate(columns):
        table.add_column(column, justify="right" if number else "left", no_wrap=number > 0, overflow="fold")
    return table


def show_encoders(metrics: dict[str, Any]) -> None:
    """Print the tables of a `metrics.json`: of query encoders, of hybrids and of recoveries, where it knows some."""
    show(_table_of_encoders("query\nencoder", {"": metrics}))
    if "hybrids" in metrics:
        show(_table_of_encoders("retrieval", metrics["hybrids"]))
    if "recovery" in metrics["teacher"]:
        show(_table_of_recoveries(metrics))
    if "recovery_advice" in metrics:
        say(metrics["recovery_advice"])


def _table_of_recoveries(metrics: dict[str, Any]) -> Table:
    """A table of its own: in that of encoders there is no room for another column in 80 letters."""
    table = table_of("of its own\nexact top ten", "the store\nreturns")
    for name, figures in metrics.items():
        if isinstance(figures, dict) and "recovery" in figures:
            table.add_row(escape(name), f"{100 * figures['recovery']:.1f} %")
    return table


def _table_of_encoders(what: str, groups: dict[str, dict[str, Any]]) -> Table:
    """
    A table of groups, each with its own teacher.

    :param groups: What is said above the group, if anything -> name -> figures.
    """
    table = table_of(what, *HEADINGS, "of\nteacher", "ms a\nquery")
    for heading, group in groups.items():
        if heading:
            table.add_row(f"{heading}:")
        best = group["teacher"][MAIN.key]
        for name, figures in group.items():
            if isinstance(figures, dict) and "encode_ms" in figures:
                share = figures[MAIN.key] / best if best else float("nan")
                shown = cells(figures, figures["intervals"][MAIN.key])
                timed = f"{figures['encode_ms']:.2f}"
                table.add_row(escape(name.replace("_", " ")), *shown, f"{100 * share:.1f} %", timed)
    return table


def show_aligned(metrics: dict[str, Any], folder: Any) -> None:
    """Print what an alignment proved, and where its files are."""
    show_encoders(metrics)
    say(headline(metrics))
    say(f"Model, metrics.json and report.html are in {folder}")


def show_progress(progress: bool) -> None:
    """Show bars for what takes long; loading and saving need none."""
    from transformers.utils import logging as transformers_logging

    transformers_logging.disable_progress_bar()
    if not progress:
        logging.getLogger().setLevel(logging.WARNING)


def weights_of(loss: str | None, known: Any) -> dict[str, float] | None:
    """Read weighted losses, as in `mse=1,index_ranking=2`."""
    from haystack_distill.losses.weights import checked_weights

    if loss is None:
        return None
    try:
        weights = {name.strip(): float(weight) for name, weight in (term.split("=") for term in loss.split(","))}
    except ValueError as error:
        msg = f"--loss {loss!r} is not of the form name=weight,name=weight; the names are {', '.join(known)}."
        raise typer.BadParameter(msg) from error
    return checked_weights(weights, known)


def served_chat(model: str, api_base_url: str) -> Any:
    """A chat generator for a model behind an OpenAI-compatible server; its key is in OPENAI_API_KEY."""
    from haystack.components.generators.chat import OpenAIChatGenerator

    # A server in one's own house wants no key, and the client wants one.
    os.environ.setdefault("OPENAI_API_KEY", "none")
    return OpenAIChatGenerator(model=model, api_base_url=api_base_url, max_retries=0)


def scorer_of(reader: str, signal: str, api_base_url: str | None = None, **settings: Any) -> Any:
    """
    The scorer of a signal, with settings as it calls them.

    :raises ValueError: If a server is asked for attention, or nothing but a server can be asked.
    """
    from haystack_distill.generation.listwise import SIGNAL
    from haystack_distill.teachers.signals import ATTENTION, SIGNALS
    from haystack_integrations.components.distill.listwise_scorer import ListwiseScorer
    from haystack_integrations.components.distill.teacher_attention_scorer import TeacherAttentionScorer
    from haystack_integrations.components.distill.teacher_likelihood_scorer import TeacherLikelihoodScorer

    if signal == SIGNAL:
        if not api_base_url:
            msg = f"{signal!r} asks a chat model behind a server: say where it is with --api-base-url."
            raise ValueError(msg)
        chat = served_chat(reader, api_base_url)
        return ListwiseScorer(generator=chat, permutations=settings.get("permutations", 1))
    if SIGNALS[signal].reads == ATTENTION:
        if api_base_url:
            msg = f"A server gives likelihoods, not the attention that {signal!r} reads: use question or pdist."
            raise ValueError(msg)
        return TeacherAttentionScorer(model=reader, signal=signal, **settings)
    return TeacherLikelihoodScorer(model=reader, signal=signal, api_base_url=api_base_url, dtype=settings["dtype"])
