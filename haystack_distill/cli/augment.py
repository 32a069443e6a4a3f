# SPDX-FileCopyrightText: 2026-present haystack-distill contributors
#
# SPDX-License-Identifier: Apache-2.0

"""`haystack-distill augment`: text to train on, out of documents, questions or dialogues."""

from pathlib import Path
from typing import Annotated, Any

import typer
from haystack import Pipeline
from rich.console import Console
from rich.table import Table

console = Console()


def augment(
    source: Annotated[Path, typer.Argument(help="A BEIR folder, documents, questions or dialogues as .jsonl.")],
    output: Annotated[Path, typer.Option(help="The folder to make.")],
    model: Annotated[str, typer.Option(help="What writes: folder, hub name, GGUF file, or its name on the server.")],
    mode: Annotated[str, typer.Option(help="questions, answers or responses.")] = "questions",
    n: Annotated[int, typer.Option(help="Texts for each document, question or context.")] = 3,
    api_base_url: Annotated[str | None, typer.Option(help="Of an OpenAI-compatible server that has the model.")] = None,
    examples: Annotated[
        Path | None, typer.Option(help="Your own pairs, a .jsonl file with `source` and `text`.")
    ] = None,
    retriever: Annotated[
        str | None, typer.Option(help="For questions: an encoder that must find their document, or bm25.")
    ] = None,
    keep_likeliest: Annotated[float | None, typer.Option(help="The share of texts that stay, by likelihood.")] = None,
    without: Annotated[list[str] | None, typer.Option(help="A filter to leave out; can be given again.")] = None,
    history: Annotated[int, typer.Option(help="The most turns of a context.")] = 20,
    concurrency: Annotated[int, typer.Option(help="Calls of a server at the same time.")] = 8,
    requests_per_minute: Annotated[float | None, typer.Option(help="The most calls of a server.")] = None,
    batch_size: Annotated[int, typer.Option(help="Texts that a local model writes together.")] = 16,
    seed: Annotated[int, typer.Option(help="Of what is sampled.")] = 0,
    progress: Annotated[bool, typer.Option(help="Show progress bars.")] = True,
) -> None:
    """Let a generator write questions, answers or replies, filter them, and say what stayed."""
    from haystack_distill.cli import _explained, _show_progress
    from haystack_integrations.components.distill.generative_augmenter import GenerativeAugmenter

    _show_progress(progress)

    def job() -> dict[str, Any]:
        augmenter = GenerativeAugmenter(
            output=str(output),
            mode=mode,
            **_writer(model, api_base_url),
            n=n,
            seed=seed,
            examples=_examples(examples),
            history=history,
            without=without,
            keep_likeliest=keep_likeliest,
            retriever=_retriever(retriever, source, output, progress),
            concurrency=concurrency,
            requests_per_minute=requests_per_minute,
            batch_size=batch_size,
            progress_bar=progress,
        )
        pipeline = Pipeline()
        pipeline.add_component("augmenter", augmenter)
        return pipeline.run({"augmenter": {"source": str(source)}})["augmenter"]

    result = _explained(job)
    print_summary(result["summary"])
    console.print(f"What stayed is in {result['output']}", highlight=False, soft_wrap=True)


def print_summary(summary: dict[str, Any]) -> None:
    """
    Show what was generated and what became of it.

    :param summary: See `haystack_distill.generation.job.augment`.
    """
    table = Table(show_header=False)
    table.add_row("sources", str(summary["sources"]))
    table.add_row("set aside", str(len(summary["set_aside"])))
    table.add_row("generated", str(summary["generated"]))
    for name, count in summary["filters"].items():
        if count:
            table.add_row(f"  {name.replace('_', ' ')}", f"-{count}")
    table.add_row("kept", str(summary["kept"]))
    table.add_row("sources with texts", str(summary["sources_with_texts"]))
    for name, count in summary["usage"].items():
        table.add_row(name.replace("_", " "), str(count))
    console.print(table)
    for one in summary["set_aside"][:5]:
        console.print(f"Set aside: {one['id']}: {one['reason']}", highlight=False, soft_wrap=True)


def _writer(model: str, api_base_url: str | None) -> dict[str, Any]:
    if api_base_url is None:
        return {"model": model}
    import os

    from haystack.components.generators.chat import OpenAIChatGenerator
    from haystack.utils import Secret

    # Servers of one's own want no key, and the client wants one.
    key = Secret.from_env_var("OPENAI_API_KEY") if "OPENAI_API_KEY" in os.environ else Secret.from_token("none")
    return {"generator": OpenAIChatGenerator(api_key=key, model=model, api_base_url=api_base_url, max_retries=0)}


def _examples(file: Path | None) -> list[dict[str, str]] | None:
    if file is None:
        return None
    from haystack_distill.files.json_lines import read_json_lines

    form = "a JSON object with source and text"
    return [row for _, row in read_json_lines(file, "examples are read from a .jsonl file", form)]


def _retriever(name: str | None, source: Path, output: Path, progress: bool) -> Any:
    if name is None:
        return None
    from haystack_distill.cli import _bm25_retriever, _embedding_retriever
    from haystack_distill.generation.modes import read_documents

    documents = read_documents(source)
    if name == "bm25":
        return _bm25_retriever(documents)
    return _embedding_retriever(documents, name, output, progress)
