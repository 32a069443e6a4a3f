"""`haystack-distill reindex`: a new index beside the one that serves, and the switch if it is not worse."""

from pathlib import Path
from typing import Annotated, Any

import typer

from haystack_distill.cli import options
from haystack_distill.cli.errors import explained
from haystack_distill.cli.machines import Failed
from haystack_distill.cli.shared import say, show, show_progress, table_of
from haystack_distill.evaluation.measures import HEADINGS, MAIN, cells


def reindex(
    pipeline: Annotated[Path, typer.Argument(help="A YAML with an IndexSwitcher, such as pipelines/reindex.yaml.")],
    queries: Annotated[Path, typer.Argument(help="A BEIR folder with dev judgments.")],
    progress: options.Progress = True,
) -> dict[str, Any]:
    """
    Embed the documents of a store anew into another and switch to it; exit code 1 if the old index keeps serving.

    Examples:
      haystack-distill reindex pipelines/reindex.yaml questions
      haystack-distill reindex pipelines/reindex.yaml questions --no-progress
    """
    with explained():
        from haystack_integrations.components.distill.pipelines import load_pipeline

        show_progress(progress)
        loaded = load_pipeline(pipeline)
        try:
            result = loaded.run(queries=str(queries))
        finally:
            loaded.pipeline.close()
    metrics, switched = result["metrics"], result["switched"]
    if not metrics:
        say(f"{result['pointer']} names the new index already.")
        return result
    show(_table(metrics))
    difference = metrics["difference"]
    change = f"{difference['difference']:+.3f} {MAIN.heading}"
    say(f"{change} on {metrics['queries']} queries (p {difference['p']:.3f})")
    say(f"{result['pointer']} {'names the new index now' if switched else 'stays: the new index is worse on dev'}.")
    if not switched:
        raise Failed(result)
    return result


def _table(metrics: dict[str, Any]) -> Any:
    table = table_of("index", *HEADINGS)
    for name in ("old", "new"):
        values = {measure: figure["value"] for measure, figure in metrics[name].items()}
        table.add_row(name, *cells(values, (metrics[name][MAIN.key]["low"], metrics[name][MAIN.key]["high"])))
    return table
