"""
Draw the README's picture from the rows of `benchmarks.retrieval`.

    python -m benchmarks.retrieval_picture retrieval.json docs/quality-latency.svg

A panel is a corpus: the upper row holds questions that people asked in their own words, the lower row those that were
written from the passage. A line of a panel is a system, alone and joined with BM25, with 95 % intervals. Nothing but
the marks has a colour, so that the picture can be read on light and dark pages.
"""

import json
from pathlib import Path
from typing import Annotated, Any

import matplotlib as mpl
import matplotlib.lines
import numpy as np
import typer
from matplotlib.axes import Axes
from matplotlib.figure import Figure, SubFigure

mpl.use("svg")

OWN_WORDS = {"feedbackqa": "FeedbackQA", "stackfaq_answers": "StackFAQ", "demo": "Python's documentation"}
FROM_PASSAGE = {
    "new_wiki": "Wikipedia",
    "amazon": "Amazon reviews",
    "scifact": "SciFact claims",
    "gov_rules": "government rules",
}
SYSTEMS = {
    ("bm25", ""): "BM25",
    ("encoder", ""): "encoder",
    ("encoder-trained", "index"): "encoder, trained, not cut",
    ("layers-2", "index"): "2 layers",
    ("layers-1", "index"): "1 layer",
    ("layers-0", "index"): "token table",
    ("kale-published-2", "queries"): "2 layers, KALE as published",
}
"""What is shown, from top to bottom."""

HYBRID = "convex"
TEXT, ALONE, JOINED = "#7d8590", "#3b82f6", "#d97706"
STYLE = {"text.color": TEXT, "axes.labelcolor": TEXT, "xtick.color": TEXT, "ytick.color": TEXT, "axes.edgecolor": TEXT}
Row = dict[str, Any]


def main(rows: Annotated[Path, typer.Argument()], picture: Annotated[Path, typer.Argument()]) -> None:
    """A row of panels for each kind of question, as far as there are rows."""
    table: list[Row] = json.loads(rows.read_text(encoding="utf-8"))
    there = {row["data"] for row in table}
    kinds = [
        ("Questions people asked in their own words", {key: OWN_WORDS[key] for key in OWN_WORDS if key in there}),
        (
            "Questions written from the passage, and situations under rules",
            {key: FROM_PASSAGE[key] for key in FROM_PASSAGE if key in there},
        ),
    ]
    kinds = [(title, corpora) for title, corpora in kinds if corpora]
    if not kinds:
        msg = f"{rows} has no row of {', '.join([*OWN_WORDS, *FROM_PASSAGE])}: make some with `benchmarks.retrieval`."
        raise typer.BadParameter(msg)
    systems = [key for key in SYSTEMS if any((row["system"], row["side"]) == key for row in table)]
    with mpl.rc_context({"svg.hashsalt": "picture", "svg.fonttype": "path", **STYLE}):
        figure = Figure(figsize=(10, 0.9 + len(kinds) * (1.1 + 0.3 * len(systems))), layout="constrained")
        figure.patch.set_alpha(0)
        parts = np.atleast_1d(figure.subfigures(len(kinds), 1))
        for part, (title, corpora) in zip(parts, kinds, strict=True):
            draw_kind(part, title, corpora, systems, table)
        marks = [mpl.lines.Line2D([], [], marker="o", linestyle="", color=color) for color in (ALONE, JOINED)]
        marks[1].set_markerfacecolor("none")
        labels = ["alone", "joined with BM25 by one weight, fitted on dev"]
        figure.legend(marks, labels, loc="outside lower center", ncols=2, fontsize=9, frameon=False)
        figure.savefig(picture, metadata={"Date": None} if picture.suffix == ".svg" else None)


def draw_kind(part: SubFigure, title: str, corpora: dict[str, str], systems: list[Any], table: list[Row]) -> None:
    """One row of panels."""
    part.patch.set_alpha(0)
    part.suptitle(title, fontsize=11, fontweight="bold")
    panels = part.subplots(1, len(corpora), sharey=True, squeeze=False)[0]
    for panel, (corpus, name) in zip(panels, corpora.items(), strict=True):
        draw(panel, {(row["system"], row["side"]): row for row in table if row["data"] == corpus}, systems)
        panel.set_title(name, fontsize=10)
    panels[0].set_yticks(range(len(systems)), [label_of(key, table) for key in systems], fontsize=9)
    panels[0].invert_yaxis()
    part.supxlabel("nDCG@10", fontsize=9)


def draw(panel: Axes, rows: dict[Any, Row], systems: list[Any]) -> None:
    """One corpus: a line for each system."""
    for place, (name, side) in enumerate(systems):
        for key, shift, color, face in (
            ((name, side), -0.15, ALONE, ALONE),
            ((f"{name}+{HYBRID}", side), 0.15, JOINED, "none"),
        ):
            row = rows.get(key)
            if row is not None:
                error = [[row["ndcg@10"] - row["ci_low"]], [row["ci_high"] - row["ndcg@10"]]]
                style = {"fmt": "o", "color": color, "markerfacecolor": face, "markersize": 5, "elinewidth": 1}
                panel.errorbar([row["ndcg@10"]], [place + shift], xerr=error, **style)
    encoder = rows.get(("encoder", ""))
    if encoder is not None:
        panel.axvline(encoder["ndcg@10"], color=TEXT, linestyle=":", linewidth=1, zorder=0)
    panel.patch.set_alpha(0)
    panel.locator_params(axis="x", nbins=4)
    panel.tick_params(labelsize=8)
    panel.grid(axis="x", alpha=0.2)
    panel.spines[["top", "right"]].set_visible(False)


def label_of(key: tuple[str, str], table: list[Row]) -> str:
    """A system's name, with the milliseconds of a query where they were measured."""
    times = [row["ms"] for row in table if (row["system"], row["side"]) == key and row["ms"] is not None]
    return f"{SYSTEMS[key]}, {np.median(times):.2g} ms" if times else SYSTEMS[key]


if __name__ == "__main__":
    typer.run(main)
