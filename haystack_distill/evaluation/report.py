"""One self-contained HTML page: what was kept, what was gained, where it lost."""

import io
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from haystack_distill.evaluation.comparison import Measured
from haystack_distill.evaluation.measures import HEADINGS, MAIN, cells
from haystack_distill.evaluation.pages import page_of

INK, SOFT, ACCENT = "#1f2937", "#6b7280", "#c2410c"
"""Colours of a picture, which become those of the page, in a light or a dark scheme."""

INCHES = 3.6
"""The width of a picture: so wide are 360 pixels, the width of a phone."""

LONGEST = 24
"""Letters of a name in a picture."""


def write_report(
    measured: dict[str, Measured],
    metrics: dict[str, Any],
    examples: dict[str, list[dict[str, Any]]],
    facts: dict[str, str],
    history: Sequence[dict[str, float]] = (),
    reference: str = "teacher",
    title: str = "",
    curve: Sequence[tuple[float, float]] = (),
    hybrids: Mapping[str, Mapping[str, Measured]] | None = None,
) -> str:
    """
    Render the report.

    :param metrics: From `comparison.metrics`.
    :param examples: From `comparison.wins_and_losses`.
    :param facts: What was trained on what, label -> text.
    :param history: The dev measure by epoch, of the student's training; epoch 0 is the student before training.
    :param reference: Which of the systems the student is compared with.
    :param title: Of a report about one system, the last; empty where query encoders are compared.
    :param curve: Weight of the second of two retrievers -> the main measure.
    :param hybrids: `alone` or a way of joining -> name -> the systems and what they are joined with.
    :returns: HTML without any reference to another file.
    """
    rows = [_row(system, metrics, measured[reference], metrics["seed"]) for system in measured.values()]
    joined = []
    for way, systems in (hybrids or {}).items():
        for name, system in systems.items():
            row = _row(system, metrics["hybrids"][way], systems[reference], metrics["seed"])
            row |= {"label": f"{' '.join(name.split())}, {way}", "is_student": row["is_student"] and name in measured}
            joined.append(row)
    if title:
        rows = [row | {"is_student": row is rows[-1]} for row in rows]
    what = "retrieval" if title else "query encoder"
    students = [row for row in rows if row["is_student"]]
    title = title or _title(students, reference)
    latencies = len({system.system.layers for system in measured.values()}) > 1
    pictures = [_picture("quality", len(rows), lambda axes: _quality(axes, rows, metrics[reference][MAIN.key]))]
    if latencies:
        pictures.append(_picture("latency", len(rows), lambda axes: _latency(axes, rows)))
    if curve:
        pictures.append(_picture("weight", 4, lambda axes: _weights(axes, curve, *list(metrics["weights"].items())[1])))
    return page_of(
        "report.html.j2",
        headings=HEADINGS,
        main=MAIN.heading,
        rows=rows,
        joined=joined,
        students=students,
        title=title,
        what=what,
        reference="teacher" if reference == "teacher" else f"{reference} retriever",
        metrics=metrics,
        examples=examples,
        facts=facts,
        latencies=latencies,
        pictures=pictures,
        learning=_picture("learning", 4, lambda axes: _learning(axes, history)) if len(history) > 1 else None,
    )


def _title(students: list[dict[str, Any]], reference: str) -> str:
    if len(students) > 1:
        return f"{len(students)} students against the same index"
    return f"{students[-1]['label']} against the same index" if reference == "teacher" else "The distilled retriever"


def _row(measured: Measured, metrics: Mapping[str, Any], reference: Measured, seed: int) -> dict[str, Any]:
    """What the tables, the tiles and the pictures say of a system."""
    figures = metrics[measured.system.name]
    interval = figures["intervals"][MAIN.key]
    return {
        "label": _label(measured),
        "is_student": measured is not reference and measured.system.name not in {"cut_only", "before"},
        "value": figures[MAIN.key],
        "interval": interval,
        "cells": cells(figures, interval),
        "encode_ms": measured.encode_ms,
        "recovery": measured.recovery,
        "training_seconds": measured.system.training_seconds,
        "against": None if measured is reference else measured.against(reference, seed),
    }


def _label(measured: Measured) -> str:
    """Names that a user chose speak for themselves."""
    layers, name = measured.system.layers, " ".join(measured.system.name.replace("_", " ").split())
    depth = "token table" if layers == 0 else f"{layers} layer{'s' if layers > 1 else ''}"
    return f"{name} ({depth})" if name in {"teacher", "cut only", "before", "student"} else name


def _quality(axes: Axes, rows: list[dict[str, Any]], reference: float) -> None:
    _names(axes, rows)
    axes.axvline(reference, color=SOFT, linestyle=":", linewidth=1)
    for place, row in enumerate(rows):
        low, high = row["interval"]
        color = ACCENT if row["is_student"] else SOFT
        axes.plot([low, high], [place, place], color=color, linewidth=2)
        axes.plot([row["value"]], [place], "o", color=color)
    axes.set_xlabel(f"{MAIN.heading}, 95 % interval")


def _latency(axes: Axes, rows: list[dict[str, Any]]) -> None:
    _names(axes, rows)
    slowest = max(row["encode_ms"] for row in rows)
    for place, row in enumerate(rows):
        milliseconds = row["encode_ms"]
        axes.barh(place, milliseconds, height=0.5, color=ACCENT if row["is_student"] else SOFT)
        said = f"{milliseconds:.2g}" if milliseconds < 1 else f"{milliseconds:.1f}"
        axes.text(milliseconds + slowest / 40, place, said, va="center")
    axes.set_xlim(0, 1.2 * slowest)
    axes.set_xlabel("milliseconds a query")


def _weights(axes: Axes, curve: Sequence[tuple[float, float]], name: str, fitted: float) -> None:
    axes.plot(*zip(*curve, strict=True), color=ACCENT)
    axes.axvline(fitted, color=SOFT, linestyle=":", linewidth=1)
    axes.set_xlim(0, 1)
    axes.set_xlabel(f"weight of {name} (dotted: fitted)")
    axes.set_ylabel(MAIN.heading)


def _learning(axes: Axes, history: Sequence[dict[str, float]]) -> None:
    key = next(name for name in history[0] if name != "epoch")
    axes.plot([entry["epoch"] for entry in history], [entry[key] for entry in history], "o-", color=ACCENT, ms=4)
    axes.set_xlim(left=0)
    axes.set_xlabel("epoch")
    axes.set_ylabel(f"dev {MAIN.heading}" if key == f"dev_{MAIN.key}" else key.replace("_", " "))
    if not history[0]["epoch"]:
        axes.axhline(history[0][key], color=SOFT, linestyle=":", linewidth=1)
        axes.set_xlabel("epoch (dotted: before training)")
    axes.xaxis.set_major_locator(MaxNLocator(5, integer=True))


def _names(axes: Axes, rows: list[dict[str, Any]]) -> None:
    labels = [row["label"] for row in rows]
    shown = [label if len(label) <= LONGEST else f"{label[: LONGEST - 1]}…" for label in labels]
    axes.set_yticks(range(len(rows)), shown)
    axes.set_ylim(len(rows) - 0.5, -0.5)
    axes.xaxis.set_major_locator(MaxNLocator(4))


def _picture(what: str, lines: int, draw: Callable[[Axes], None]) -> str:
    """An SVG of a height for so many lines, in the colours of the page."""
    inked: Any = ("text.color", "axes.labelcolor", "axes.edgecolor", "xtick.color", "ytick.color", "grid.color")
    # Names are no formulas, even between dollar signs.
    style: Any = {"text.parse_math": False, "svg.fonttype": "none", "font.family": "sans-serif", "font.size": 9}
    buffer = io.StringIO()
    with rc_context({**style, **dict.fromkeys(inked, INK), "svg.hashsalt": what}):
        figure = Figure(figsize=(INCHES, 0.7 + 0.35 * lines), layout="constrained")
        axes = figure.subplots()
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(alpha=0.2, linewidth=0.6)
        axes.set_axisbelow(True)
        draw(axes)
        figure.savefig(buffer, format="svg", metadata={"Date": None}, transparent=True)
    svg = buffer.getvalue()
    svg = re.sub("<metadata>.*?</metadata>", "", svg[svg.index("<svg") :], flags=re.DOTALL)
    for color, name in ((INK, "currentColor"), (SOFT, "var(--soft)"), (ACCENT, "var(--accent)")):
        svg = svg.replace(color, name)
    return svg.replace("<svg", f'<svg role="img" aria-label="{what}"', 1)
