# SPDX-FileCopyrightText: 2026-present haystack-distill contributors
#
# SPDX-License-Identifier: Apache-2.0

"""`haystack-distill reindex`: a new index beside the one that serves, and the switch if it is not worse."""

from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

console = Console()


def reindex(
    pipeline: Annotated[Path, typer.Argument(help="A YAML with an IndexSwitcher, such as pipelines/reindex.yaml.")],
    queries: Annotated[Path, typer.Argument(help="A BEIR folder with dev judgments.")],
    progress: Annotated[bool, typer.Option(help="Show loading and log messages.")] = True,
) -> None:
    """Embed the documents of a store anew into another and switch to it; exit code 1 if the old index keeps serving."""
    from haystack_distill.cli import _explained, _show_progress
    from haystack_integrations.components.distill.pipelines import load_pipeline

    _show_progress(progress)

    def job() -> dict[str, Any]:
        loaded = load_pipeline(pipeline)
        try:
            return loaded.run(queries=str(queries))
        finally:
            loaded.pipeline.close()

    result = _explained(job)
    if not result["metrics"]:
        console.print(f"{result['pointer']} names the new index already.", highlight=False, soft_wrap=True)
        return
    _print_metrics(result["metrics"])
    what = "names the new index now" if result["switched"] else "stays: the new index is worse on dev"
    console.print(f"{result['pointer']} {what}.", highlight=False, soft_wrap=True)
    if not result["switched"]:
        raise typer.Exit(1)


def _print_metrics(metrics: dict[str, Any]) -> None:
    table = Table()
    for column in ("index", "nDCG@10", "95 %", "recall@10", "MRR@10"):
        table.add_column(column, justify="left" if column == "index" else "right")
    for name in ("old", "new"):
        ndcg, recall, mrr = (metrics[name][measure] for measure in ("ndcg@10", "recall@10", "mrr@10"))
        interval = f"{ndcg['low']:.3f} to {ndcg['high']:.3f}"
        table.add_row(name, f"{ndcg['value']:.3f}", interval, f"{recall['value']:.3f}", f"{mrr['value']:.3f}")
    console.print(table)
    difference = metrics["difference"]
    console.print(
        f"{difference['difference']:+.3f} nDCG@10 on {metrics['queries']} queries (p {difference['p']:.3f})",
        highlight=False,
    )
