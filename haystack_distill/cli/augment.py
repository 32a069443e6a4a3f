"""`haystack-distill augment`: text to train on, out of documents, questions or dialogues."""

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from haystack_distill.cli import options
from haystack_distill.cli.errors import explained
from haystack_distill.cli.shared import plain_table, say, served_chat, show, show_progress

if TYPE_CHECKING:
    from haystack import Document

    from haystack_distill.cli.indexing import Documents

filters = partial(typer.Option, rich_help_panel="What stays")
server = partial(typer.Option, rich_help_panel="A server that writes")


def augment(
    output: Annotated[Path, typer.Option(help="The folder to make.")],
    model: Annotated[str, typer.Option(help="What writes: folder, hub name, GGUF file, or its name on the server.")],
    source: Annotated[
        Path | None,
        typer.Argument(help="A BEIR folder, a folder of texts, or documents, questions or dialogues as .jsonl."),
    ] = None,
    store: options.Store = None,
    mode: Annotated[options.Mode, typer.Option(help="What is written.")] = "questions",
    n: Annotated[int, typer.Option(help="Texts for each document, question or context.")] = 3,
    examples: Annotated[
        Path | None, typer.Option(help="Your own pairs, a .jsonl file with `source` and `text`.")
    ] = None,
    history: Annotated[int, typer.Option(help="The most turns of a context.")] = 20,
    retriever: Annotated[
        str | None, filters(help="For questions: an encoder that must find their document, or bm25.")
    ] = None,
    keep_likeliest: Annotated[float | None, filters(help="The share of texts that stay, by likelihood.")] = None,
    without: Annotated[list[str] | None, filters(help="A filter to leave out; can be given again.")] = None,
    api_base_url: Annotated[
        str | None, server(help="The URL of an OpenAI-compatible server that has the model.")
    ] = None,
    concurrency: Annotated[int, server(help="Calls at the same time.")] = 8,
    requests_per_minute: Annotated[float | None, server(help="The most calls a minute.")] = None,
    batch_size: Annotated[int, options.running(help="Texts that a local model writes together.")] = 16,
    seed: options.Seed = 0,
    workers: options.Workers = 1,
    progress: options.Progress = True,
) -> dict[str, Any]:
    """
    Let a generator write questions, answers or replies, filter them, and say what stayed.

    Examples:
      haystack-distill augment corpus.jsonl --model Qwen/Qwen3-0.6B --output questions
      haystack-distill augment corpus.jsonl --model Qwen/Qwen3-0.6B --keep-likeliest 0.7 --n 5 --output questions
    """
    with explained(output):
        from haystack_integrations.components.distill.generative_augmenter import GenerativeAugmenter

        show_progress(progress)
        given = _given(source, store) if mode == "questions" else None
        searched = _searched(source, store) if retriever else None
        name = None if retriever == "bm25" else retriever
        augmenter = GenerativeAugmenter(
            output=str(output),
            mode=mode,
            **writer_of(model, api_base_url),
            n=n,
            seed=seed,
            examples=_examples(examples),
            history=history,
            without=without,
            keep_likeliest=keep_likeliest,
            retriever=searched.by_text(name, output, progress) if searched else None,
            concurrency=concurrency,
            requests_per_minute=requests_per_minute,
            batch_size=batch_size,
            num_workers=workers,
            progress_bar=progress,
        )
        result = augmenter.run(documents=given) if given else augmenter.run(source=str(source) if source else None)
    summary = result["summary"]
    show(plain_table(_counts(summary)))
    for row in summary["set_aside"][:5]:
        say(f"Set aside: {row['id']}: {row['reason']}")
    say(f"What stayed is in {result['output']}")
    return result


def _counts(summary: dict[str, Any]) -> dict[str, Any]:
    """What was generated and what became of it, see `haystack_distill.generation.job.augment`."""
    removed = {f"  {name.replace('_', ' ')}": f"-{count}" for name, count in summary["filters"].items() if count}
    return {
        "sources": summary["sources"],
        "set aside": len(summary["set_aside"]),
        "generated": summary["generated"],
        **removed,
        "kept": summary["kept"],
        "sources with texts": summary["sources_with_texts"],
        **{name.replace("_", " "): count for name, count in summary["usage"].items()},
    }


def writer_of(model: str, api_base_url: str | None) -> dict[str, Any]:
    """Who writes, as init parameters of `GenerativeAugmenter`."""
    return {"model": model} if api_base_url is None else {"generator": served_chat(model, api_base_url)}


def _examples(file: Path | None) -> list[dict[str, str]] | None:
    if file is None:
        return None
    from haystack_distill.files.json_lines import read_json_lines

    form = "a JSON object with source and text"
    return [row for _, row in read_json_lines(file, "examples are read from a .jsonl file", form)]


def _searched(source: Path | None, store: Path | None) -> "Documents":
    """The documents that questions are written for, as they are searched."""
    from haystack_distill.cli.indexing import Documents
    from haystack_distill.data.beir import Corpus
    from haystack_distill.data.training_set import MANIFEST
    from haystack_distill.generation.modes import read_documents

    if source and (source / MANIFEST).is_file():
        return Documents(Corpus(read_documents(source), {}))
    return Documents.of(source, store)


def _given(source: Path | None, store: Path | None) -> "list[Document] | None":
    """The documents of a store or of a folder of texts; None for what the augmenter reads itself."""
    from haystack import Document

    from haystack_distill.cli.documents import corpus_of, holds_texts
    from haystack_distill.cli.indexing import documents_in

    if store is not None:
        return [Document(id=row.id, content=row.content) for row in documents_in(store)]
    if source is None or not holds_texts(source):
        return None
    return [Document(id=key, content=text) for key, text in corpus_of(source).documents.items()]
