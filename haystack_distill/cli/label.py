"""`haystack-distill label`: from questions to a labelled training set."""

from pathlib import Path
from textwrap import shorten
from typing import Annotated, Any

import typer
from rich.markup import escape

from haystack_distill.cli import options
from haystack_distill.cli.errors import explained
from haystack_distill.cli.shared import plain_table, say, scorer_of, show, show_progress, table_of

SHOWN = 5
"""Passages of the row that is shown."""


def label(
    data: Annotated[Path, typer.Argument(help="A BEIR folder, or a training set, which is labelled as it is.")],
    reader: Annotated[str, typer.Option(help="The model that labels: folder, hub name or GGUF file.")],
    output: Annotated[Path | None, typer.Option(help="The training set to make, from a BEIR folder.")] = None,
    model: Annotated[
        str | None, options.candidates(help="The encoder that retrieves candidates; default: BM25.")
    ] = None,
    store: options.Store = None,
    split: Annotated[str, options.candidates(help="Whose queries.")] = "train",
    top_k: Annotated[int, options.candidates(help="Candidates of each query.")] = 8,
    signal: options.Signal = "question",
    heads: options.Heads = None,
    permutations: Annotated[
        int, options.teacher(help="For icr, heads and listwise: in how many orders passages are read.")
    ] = 1,
    dtype: options.Dtype = None,
    api_base_url: options.ApiBaseUrl = None,
    workers: options.Workers = 1,
    progress: options.Progress = True,
) -> dict[str, Any]:
    """
    Retrieve candidates for questions, let a reader score them, and say what the labels look like.

    Examples:
      haystack-distill label questions --reader Qwen/Qwen3-0.6B --output labelled
      haystack-distill label q --reader gpt-5-mini --signal listwise --api-base-url https://api.openai.com/v1 --output o
    """
    with explained(output or data):
        from haystack_distill.cli.indexing import Documents
        from haystack_distill.data.beir import split_file
        from haystack_integrations.components.distill.teacher_labeller import TeacherLabeller
        from haystack_integrations.components.distill.training_set_builder import TrainingSetBuilder

        show_progress(progress)
        scorer = scorer_of(reader, signal, api_base_url, heads=heads, permutations=permutations, dtype=dtype)
        labeller = TeacherLabeller(scorer=scorer, num_workers=workers, progress_bar=progress)
        training_set = data
        if not (data / "training_set.json").is_file():
            if output is None:
                msg = f"{data} is no training set, so one is made of it: name it with --output."
                raise ValueError(msg)
            split_file(data, split)  # one that is not there is found out before anything is embedded
            documents = Documents.of(data, store)
            scorer.warm_up()  # a reader that does not do is found out before anything is embedded or searched
            builder = TrainingSetBuilder(
                retriever=documents.by_text(model, output, progress),
                top_k=top_k,
                split=split,
                output=str(output),
                progress_bar=progress,
            )
            training_set = Path(builder.run(queries=str(data))["training_set"])
        summary = labeller.run(training_set=str(training_set))["summary"]
    show(_summary(summary))
    if summary["labelled"]:
        _show_example(training_set)
    for row in summary["set_aside"][:5]:
        say(f"Set aside: {row['query_id']}: {row['reason']}")
    say(f"The training set is in {training_set}")
    return {"output": str(training_set), **summary}


def _show_example(training_set: Path) -> None:
    """Print what the teacher thinks of the first row that it scored, the best passage first."""
    from haystack_distill.data.training_set import TrainingSet

    row = next(TrainingSet.open(training_set).labelled())
    say(f"For example: {row.query}")
    table = table_of("passage", "teacher's\nscore", "retriever's\nplace")
    places = range(1, 1 + len(row.documents))
    scored = sorted(zip(row.teacher_scores or [], places, row.documents, strict=True), reverse=True)
    for score, place, text in scored[:SHOWN]:
        table.add_row(escape(shorten(text, 60, placeholder=" ...")), f"{score:.3f}", str(place))
    show(table)


def _summary(summary: dict[str, Any]) -> Any:
    usage = {name.replace("_", " "): count for name, count in summary["usage"].items()}
    return plain_table(
        {
            "rows": summary["rows"],
            "labelled": summary["labelled"],
            "set aside": len(summary["set_aside"]),
            "truncated passages": summary["cut_passages"],
            "rows with all scores equal": summary["all_equal"],
            "score spread (median standard deviation)": f"{summary['spread']:.4g}",
            "first passage as the retriever's": f"{100 * summary['first_agrees']:.1f} %",
            "Kendall's tau with the retriever": f"{summary['kendall_tau']:.3f}",
            **usage,
        }
    )
