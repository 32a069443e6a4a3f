"""`haystack-distill export-corpus`: the documents of a store as JSON lines."""

from pathlib import Path
from typing import Annotated, Any

import typer

from haystack_distill.cli.errors import explained
from haystack_distill.cli.shared import say


def export_corpus(
    store: Annotated[Path, typer.Argument(exists=True, dir_okay=False, help="The YAML of a document store.")],
    output: Annotated[Path, typer.Argument(help="The .jsonl file to write; it must not exist.")],
    title: Annotated[str | None, typer.Option(help="The meta field that is the title, if there is one.")] = None,
) -> dict[str, Any]:
    """
    Write the documents of a store as JSON lines, page by page: the corpus.jsonl of a BEIR folder.

    Examples:
      haystack-distill export-corpus store.yaml questions/corpus.jsonl
      haystack-distill export-corpus store.yaml corpus.jsonl --title name
    """
    with explained():
        from haystack_distill.cli.indexing import documents_in
        from haystack_distill.data.beir import write_lines
        from haystack_distill.files.folders import refuse_existing, written

        refuse_existing(output)
        count = 0

        def lines() -> Any:
            nonlocal count
            for row in documents_in(store):
                count += 1
                named = {"title": str(row.meta[title])} if title and row.meta.get(title) is not None else {}
                yield {"_id": row.id, **named, "text": row.content or ""}

        with written(output) as unfinished:
            write_lines(unfinished, lines())
    say(f"{count} documents are in {output}")
    return {"output": str(output), "documents": count}
