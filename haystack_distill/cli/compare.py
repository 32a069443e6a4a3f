"""`haystack-distill compare`: what two query pipelines find for the same questions, side by side."""

import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import typer

from haystack_distill.cli import options
from haystack_distill.cli.augment import writer_of
from haystack_distill.cli.errors import explained
from haystack_distill.cli.shared import plain_table, say, show, show_progress

YAML = "A pipeline YAML, from `query` to `documents`"
ANSWER_TOKENS = 96


def compare(
    old: Annotated[Path, typer.Argument(help=f"{YAML}, as it is now.")],
    new: Annotated[Path, typer.Argument(help=f"{YAML}, as it could be.")],
    questions: Annotated[Path, typer.Argument(help="A text file, a question a line; a .jsonl file; a BEIR folder.")],
    output: Annotated[Path, typer.Option(help="The page to write.")] = Path("before-after.html"),
    count: Annotated[int, typer.Option(min=1, help="How many questions at most, the first ones.")] = 20,
    top_k: Annotated[int, typer.Option(min=1, help="How many passages are shown, and read by --model.")] = 3,
    model: Annotated[
        str | None,
        typer.Option(help="What answers, from the passages: folder, hub name, GGUF file, name on the server."),
    ] = None,
    api_base_url: Annotated[
        str | None, typer.Option(help="The URL of an OpenAI-compatible server that has the model.")
    ] = None,
    progress: options.Progress = True,
) -> dict[str, Any]:
    """
    Write a page that shows what two pipelines find for the same questions, how fast, and the answers made of it.

    Examples:
      haystack-distill compare old.yaml new.yaml questions.txt
      haystack-distill compare old.yaml new.yaml questions --model Qwen/Qwen3-0.6B --output answers.html
    """
    with explained():
        from haystack_distill.evaluation.side_by_side import Row, side_by_side, summary_of
        from haystack_distill.files.folders import written

        if api_base_url and not model:
            msg = "--api-base-url says where a model is: name it with --model."
            raise ValueError(msg)
        show_progress(progress)
        asked = _questions(questions)[:count]
        sides = [_found(file, asked, top_k) for file in (old, new)]
        if model:
            sides = _answered(sides, asked, model, api_base_url, progress)
        rows = [Row(question, pair) for question, pair in zip(asked, zip(*sides, strict=True), strict=True)]
        names = (old.stem, new.stem) if old.stem != new.stem else (str(old), str(new))
        with written(output) as unfinished:
            unfinished.write_text(side_by_side(names, rows), encoding="utf-8")
    summary = summary_of(rows)
    before, after = summary["milliseconds"]
    shown = {
        "questions": len(rows),
        "with the same passage first": summary["same_first"],
        "with the same passages": summary["same"],
        "milliseconds a question": f"{before:.1f} before, {after:.1f} after",
    }
    show(plain_table(shown))
    say(f"{output} shows them side by side; open it in a browser.")
    return {"output": str(output), "questions": len(rows), **summary}


def _questions(source: Path) -> list[str]:
    from haystack_distill.data.beir import splits_in
    from haystack_distill.data.questions import read_questions
    from haystack_distill.files.texts import read_text

    if "test" in splits_in(source):  # the others may have been learnt from
        return [question.text for question in read_questions(source, "test")]
    if source.is_dir() or source.suffix in {".jsonl", ".csv", ".tsv", ".parquet"}:
        return [question.text for question in read_questions(source / "queries.jsonl" if source.is_dir() else source)]
    if not source.is_file():
        msg = f"The questions {source} are missing: name a text file with a question a line, or a BEIR folder."
        raise FileNotFoundError(msg)
    lines = [line.strip() for line in read_text(source).splitlines()]
    if not any(lines):
        msg = f"{source} holds no question: write one on each line."
        raise ValueError(msg)
    return [line for line in lines if line]


def _found(file: Path, asked: Sequence[str], top_k: int) -> list[Any]:
    """What a pipeline finds, timed; it is asked the first question before, for what is done only once."""
    from haystack_distill.evaluation.side_by_side import Side

    pipeline, sides = _opened(file), []
    try:
        pipeline.run(query=asked[0])
        for question in asked:
            start = time.perf_counter()
            documents = pipeline.run(query=question)["documents"]
            milliseconds = 1000 * (time.perf_counter() - start)
            sides.append(Side([one.content or "" for one in documents[:top_k]], milliseconds))
    finally:
        pipeline.pipeline.close()  # the other may want the same folder of a store
    return sides


def _opened(file: Path) -> Any:
    from haystack_integrations.components.distill.pipelines import load_pipeline

    pipeline: Any = load_pipeline(file)
    inputs, outputs = pipeline.__haystack_input__._sockets_dict, pipeline.__haystack_output__._sockets_dict
    for name, sockets, kind in (("query", inputs, "inputs"), ("documents", outputs, "outputs")):
        if name not in sockets:
            there = ", ".join(sockets)
            msg = f"{file} has no `{name}` among its {kind} ({there}): name it, as pipelines/query.yaml does."
            raise ValueError(msg)
    wanted = [name for name, socket in inputs.items() if socket.is_mandatory and name != "query"]
    if wanted:
        msg = f"{file} wants {' and '.join(wanted)} besides a query, and nothing is given: leave it out of its inputs:."
        raise ValueError(msg)
    return pipeline


def _answered(sides: Any, asked: Sequence[str], model: str, api_base_url: str | None, progress: bool) -> Any:
    """The same with answers; the generator is loaded once, and what both found the same it answers once."""
    from haystack_distill.files.progress import progress_bar
    from haystack_distill.generation.answering import answers
    from haystack_integrations.components.distill.generative_augmenter import GenerativeAugmenter

    sampling = None if api_base_url else {"temperature": 0, "max_new_tokens": ANSWER_TOKENS}
    augmenter = GenerativeAugmenter(output="", mode="answers", sampling=sampling, **writer_of(model, api_base_url))
    to_read = [(question, side.passages) for found in sides for question, side in zip(asked, found, strict=True)]
    answered: dict[int, str] = {}
    with progress_bar("Answering", len(to_read), 0, shown=progress) as show_bar:
        for answered in answers(augmenter.writer(), to_read):
            show_bar(len(answered))
    augmenter.close()
    places = iter(range(len(to_read)))
    return [[replace(side, answer=answered.get(next(places))) for side in found] for found in sides]
