# SPDX-FileCopyrightText: 2026-present haystack-distill contributors
#
# SPDX-License-Identifier: Apache-2.0

"""One self-contained HTML page: what was kept, what was gained, where it lost."""

import io
from collections.abc import Sequence
from importlib import resources
from typing import Any

import jinja2
import matplotlib as mpl

mpl.use("svg")

from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, NullFormatter

from haystack_distill.evaluation.comparison import Measured

TEACHER, STUDENT, OTHER = "#6b7280", "#c2410c", "#9ca3af"


def write_report(
    measured: dict[str, Measured],
    metrics: dict[str, Any],
    examples: dict[str, list[dict[str, Any]]],
    facts: dict[str, str],
    history: Sequence[dict[str, float]] = (),
    reference: str = "teacher",
) -> str:
    """
    Render the report.

    :param measured: The systems, the student last.
    :param metrics: From `comparison.metrics`.
    :param examples: From `comparison.wins_and_losses`.
    :param facts: What was trained on what, label -> text.
    :param history: The dev measure by epoch, of the student's training.
    :param reference: Which of them the student is compared with.
    :returns: HTML without any reference to another file.
    """
    environment = jinja2.Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True)
    template = environment.from_string(
        resources.files("haystack_distill.evaluation").joinpath("report.html.j2").read_text("utf-8")
    )
    rows = [
        {
            "name": _label(one),
            "is_student": one is list(measured.values())[-1],
            "training_seconds": one.system.training_seconds,
            "share": one.quality.mean() / (measured[reference].quality.mean() or float("nan")),
            "speedup": measured[reference].encode_ms / one.encode_ms,
            **metrics[name],
        }
        for name, one in measured.items()
    ]
    student = _label(list(measured.values())[-1])
    depths = {one.system.layers for one in measured.values()}
    return template.render(
        rows=rows,
        title=f"{student} against the same index" if reference == "teacher" else "The distilled retriever",
        share=metrics[f"share_of_{reference}"],
        reference="teacher" if reference == "teacher" else f"{reference} retriever",
        metrics=metrics,
        student=rows[-1],
        examples=examples,
        facts=facts,
        curve=quality_latency_curve(measured) if len(depths) > 1 else None,
        learning=_learning_curve(history) if len(history) > 1 else None,
    )


def quality_latency_curve(measured: dict[str, Measured]) -> str:
    """
    Draw quality against latency.

    :param measured: The systems, the student last.
    :returns: SVG.
    """
    figure = Figure(figsize=(6.4, 3.8), layout="constrained")
    axes = figure.subplots()
    student = list(measured)[-1]
    for name, one in measured.items():
        low, high = _interval(one)
        value = one.quality.mean()
        color = {"teacher": TEACHER, "untouched": TEACHER, student: STUDENT}.get(
            name, STUDENT if "cut" not in name else OTHER
        )
        axes.errorbar(
            one.encode_ms, value, yerr=[[value - low], [high - value]], fmt="o", color=color, markersize=7, capsize=3
        )
        axes.annotate(
            _label(one), (one.encode_ms, high), xytext=(0, 6), textcoords="offset points", color=color, ha="center"
        )
    axes.set_xscale("log")
    axes.margins(x=0.3, y=0.15)
    axes.set_xlabel("milliseconds to encode one query (log scale; further left is faster)")
    axes.set_ylabel("nDCG@10, 95 % interval")
    axes.set_ylim(bottom=0)
    _tidy(axes)
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.xaxis.set_minor_formatter(NullFormatter())
    return _svg(figure)


def _interval(one: Measured) -> tuple[float, float]:
    low, high = one.figures()["intervals"]["ndcg@10"]
    return low, high


def _learning_curve(history: Sequence[dict[str, float]]) -> str:
    figure = Figure(figsize=(6.4, 2.4), layout="constrained")
    axes = figure.subplots()
    axes.plot([one["epoch"] for one in history], [one["dev_ndcg@10"] for one in history], "o-", color=STUDENT)
    axes.set_xlabel("epoch")
    axes.set_ylabel("dev nDCG@10")
    _tidy(axes)
    return _svg(figure)


def _tidy(axes: Any) -> None:
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(alpha=0.25)


def _svg(figure: Figure) -> str:
    buffer = io.StringIO()
    with mpl.rc_context({"svg.fonttype": "none", "font.family": "sans-serif", "svg.hashsalt": "report"}):
        figure.savefig(buffer, format="svg", metadata={"Date": None}, transparent=True)
    svg = buffer.getvalue()
    return svg[svg.index("<svg") :]


def _label(one: Measured) -> str:
    """Names that a user chose speak for themselves."""
    layers = one.system.layers
    depth = "token table" if layers == 0 else f"{layers} layer{'s' if layers > 1 else ''}"
    name = one.system.name.replace("_", " ")
    return f"{name} ({depth})" if name in {"teacher", "cut only", "student"} else name
