# SPDX-FileCopyrightText: 2026-present haystack-distill contributors
#
# SPDX-License-Identifier: Apache-2.0

"""
Draw the README's picture from the rows of `benchmarks.kale`.

    python -m benchmarks.kale_picture kale.json docs/quality-latency.svg
"""

import json
from pathlib import Path
from typing import Annotated

import matplotlib as mpl
import typer
from matplotlib.figure import Figure

mpl.use("svg")

STYLES = {
    "train queries + index": ("o-", "#c2410c", "ours, train queries and index"),
    "index alone": ("s--", "#ea9a66", "ours, index alone"),
    "train queries": ("^:", "#6b7280", "KALE as published"),
}


def main(rows: Annotated[Path, typer.Argument()], picture: Annotated[Path, typer.Argument()]) -> None:
    """One panel a corpus: share of the teacher against the time to encode a query."""
    table = json.loads(rows.read_text(encoding="utf-8"))
    corpora = list(dict.fromkeys(row["corpus"] for row in table))
    figure = Figure(figsize=(3.6 * len(corpora), 3.4), layout="constrained")
    panels = figure.subplots(1, len(corpora), sharey=True, squeeze=False)[0]
    for panel, corpus in zip(panels, corpora, strict=True):
        for text, (style, color, label) in STYLES.items():
            points = [row for row in table if row["corpus"] == corpus and row["text"] == text]
            points.sort(key=lambda row: row["encode_ms"])
            panel.plot(
                [row["encode_ms"] for row in points], [row["share"] for row in points], style, color=color, label=label
            )
            for row in points:
                depth = "table" if row["kept"] == "table" else f"{len(row['kept'].split())}"
                if text != "index alone":
                    panel.annotate(
                        depth, (row["encode_ms"], row["share"]), xytext=(4, 5), textcoords="offset points", fontsize=8
                    )
        cuts = [row for row in table if row["corpus"] == corpus and row["system"].startswith("cut only")]
        panel.plot(
            [row["encode_ms"] for row in cuts],
            [row["share"] for row in cuts],
            "x",
            color="#9ca3af",
            label="cut only, not trained",
        )
        teacher = next(row for row in table if row["corpus"] == corpus and row["system"] == "teacher")
        name = f"teacher, {teacher['layers']} layers"
        panel.plot([teacher["encode_ms"]], [100], "*", color="black", markersize=11, label=name)
        panel.set_xscale("log")
        panel.set_xticks([0.2, 0.5, 1, 2, 5, 10], ["0.2", "0.5", "1", "2", "5", "10"])
        panel.minorticks_off()
        panel.set_title(corpus.rsplit("/", 1)[-1], fontsize=10)
        panel.set_xlabel("ms to encode a query")
        panel.grid(alpha=0.25)
        panel.spines[["top", "right"]].set_visible(False)
    panels[0].set_ylabel("% of the teacher's nDCG@10")
    panels[0].set_ylim(0, 5 + max(100, *(row["share"] for row in table)))
    handles, labels = panels[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=5, fontsize=8, frameon=False)
    with mpl.rc_context({"svg.hashsalt": "picture"}):
        figure.savefig(picture, metadata={"Date": None} if picture.suffix == ".svg" else None)


if __name__ == "__main__":
    typer.run(main)
