"""`haystack-distill judgments`: questions and the documents that answer them, from the files that people keep."""

from collections import defaultdict
from pathlib import Path
from typing import Annotated, Any

import typer

from haystack_distill.cli import options
from haystack_distill.cli.errors import explained
from haystack_distill.cli.shared import say


def judgments(
    source: Annotated[
        str, typer.Argument(help="A .csv, .tsv, .jsonl or .parquet file with a question and a document in each row.")
    ],
    output: options.Output,
    store: Annotated[
        Path | None,
        typer.Option(exists=True, dir_okay=False, help="The YAML of the store whose documents are judged."),
    ] = None,
    by: Annotated[str, typer.Option(help="What the rows name documents by, as id or meta.url.")] = "id",
    test: Annotated[float, typer.Option(min=0, max=1, help="The share of the questions that is for the proof.")] = 0.5,
    dev: Annotated[float, typer.Option(min=0, max=1, help="The share that is for choices and thresholds.")] = 0.2,
    seed: options.Seed = 0,
) -> dict[str, Any]:
    """
    Make a folder of questions and judgments, in the form that all commands read.

    Columns are found by their usual names: question, query or text; document, document_id, id or url, or the field of
    --by; perhaps grade, and split (train, dev or test).

    Examples:
      haystack-distill judgments answered.csv --store store.yaml --by meta.url --output questions
      haystack-distill judgments log.jsonl --test 0.3 --output questions
    """
    with explained():
        from haystack_distill.evaluation.judgments import read_judgments, write_judgments

        if by != "id" and (store is None or not by.startswith("meta.")):
            msg = f"--by {by!r} needs the store that has it: name the store with --store, and a field as meta.url."
            raise typer.BadParameter(msg)
        rows = read_judgments(source, by.removeprefix("meta."))
        ids = _ids(store, by) if store else None
        shares = {"test": test, "dev": dev}
        counts = write_judgments(output, rows, lambda name: (name,) if ids is None else ids.get(name, ()), shares, seed)
    unknown = counts.pop("unknown")
    if unknown and ids is not None:
        first = next(row.document for row in rows if row.document not in ids)
        say(f"{unknown} of {len(rows)} rows name documents that the store lacks, and are left out ({first!r} is one).")
    said = ", ".join(f"{count} {split}" for split, count in counts.items())
    say(f"{output} has {said} questions; their documents are {'those of the store' if store else 'elsewhere'}.")
    return {"output": str(output), "questions": counts, "unknown": unknown}


def _ids(store: Path, by: str) -> dict[str, list[str]]:
    """What documents are named by -> the ids of those that are."""
    from haystack_distill.cli.indexing import documents_in

    found = defaultdict(list)
    for row in documents_in(store):
        value = row.id if by == "id" else row.meta.get(by.removeprefix("meta."))
        if value is not None:
            found[str(value)].append(row.id)
    return found
