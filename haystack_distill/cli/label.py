# SPDX-FileCopyrightText: 2026-present haystack-distill contributors
#
# SPDX-License-Identifier: Apache-2.0

"""`haystack-distill label` and `heads`: from questions to a labelled training set, and the heads that find evidence."""

from pathlib import Path
from typing import Annotated, Any

import typer
from haystack import Pipeline
from rich.console import Console
from rich.table import Table

console = Console()
ATTENTION = ("dkrr", "adist", "icr", "heads")


def label(
    data: Annotated[Path, typer.Argument(help="A BEIR folder, or a training set, which is labelled as it is.")],
    reader: Annotated[str, typer.Option(help="The model that labels: folder, hub name or GGUF file.")],
    signal: Annotated[
        str, typer.Option(help="question, pdist, loop, emdr2, response, mi, dkrr, adist, icr, heads.")
    ] = "question",
    output: Annotated[Path | None, typer.Option(help="The training set to make, from a BEIR folder.")] = None,
    model: Annotated[str | None, typer.Option(help="The encoder that retrieves candidates; default: BM25.")] = None,
    split: Annotated[str, typer.Option(help="Whose queries.")] = "train",
    top_k: Annotated[int, typer.Option(help="Candidates of each query.")] = 8,
    heads: Annotated[
        str | None, typer.Option(help="For the signal heads: what `haystack-distill heads` wrote.")
    ] = None,
    permutations: Annotated[int, typer.Option(help="For icr and heads: in how many orders passages are read.")] = 1,
    dtype: Annotated[str | None, typer.Option(help="Of the reader: float32 or bfloat16.")] = None,
    api_base_url: Annotated[
        str | None, typer.Option(help="Of an OpenAI-compatible server that has the reader.")
    ] = None,
    workers: Annotated[int, typer.Option(help="Processes that score, through Ray.")] = 1,
    progress: Annotated[bool, typer.Option(help="Show progress bars.")] = True,
) -> None:
    """Retrieve candidates for questions, let a reader score them, and say what the labels look like."""
    from haystack_distill.cli import _explained, _show_progress
    from haystack_integrations.components.distill.teacher_labeller import TeacherLabeller

    _show_progress(progress)

    def job() -> dict[str, Any]:
        scorer = scorer_of(reader, signal, heads, permutations, dtype, api_base_url)
        labeller = TeacherLabeller(scorer=scorer, num_workers=workers, progress_bar=progress)
        pipeline = Pipeline()
        pipeline.add_component("labeller", labeller)
        if (data / "training_set.json").is_file():
            return pipeline.run({"labeller": {"training_set": str(data)}})["labeller"]
        if output is None:
            msg = f"{data} is no training set, so one is made of it: name it with --output."
            raise ValueError(msg)
        pipeline.add_component("builder", _builder(data, output, model, split, top_k, progress))
        pipeline.connect("builder.training_set", "labeller.training_set")
        return pipeline.run({"builder": {"queries": str(data)}})["labeller"]

    result = _explained(job)
    print_summary(result["summary"])
    console.print(f"The training set is in {result['training_set']}", highlight=False, soft_wrap=True)


def choose_heads(
    training_set: Annotated[Path, typer.Argument(help="With judgments, or labelled by another signal.")],
    reader: Annotated[str, typer.Option(help="A causal language model: folder, hub name or GGUF file.")],
    output: Annotated[Path, typer.Option(help="The .json file to write; a picture goes beside it.")],
    method: Annotated[str, typer.Option(help="core or qr.")] = "core",
    count: Annotated[int, typer.Option(help="How many heads.")] = 8,
    questions: Annotated[int, typer.Option(help="On how many questions.")] = 64,
    dtype: Annotated[str | None, typer.Option(help="Of the reader: float32 or bfloat16.")] = None,
) -> None:
    """Choose the few attention heads that find the evidence, for the signal `heads`."""
    from haystack_distill.cli import _explained, _show_progress

    _show_progress(True)

    def job() -> Any:
        from haystack_distill.data.training_set import TrainingSet
        from haystack_distill.teachers.attention_signals import head_examples
        from haystack_distill.teachers.causal import CausalReader
        from haystack_distill.teachers.heads import select_heads
        from haystack_distill.teachers.readers import load_reader
        from haystack_distill.teachers.scores import Candidates

        known = [(row, right) for row in TrainingSet.open(training_set) if (right := _right(row)) is not None]
        rows = [Candidates(row.query, row.documents, row.answers) for row, _ in known[:questions]]
        loaded = load_reader(reader, dtype=dtype)
        if not isinstance(loaded, CausalReader):
            msg = f"{reader} is an encoder-decoder, and heads are chosen in decoder-only models: use dkrr or adist."
            raise ValueError(msg)
        examples = head_examples(loaded, rows, [right for _, right in known[:questions]])
        heads = select_heads(list(examples), model=reader, method=method, count=count)
        heads.save(output)
        return heads

    heads = _explained(job)
    found = ", ".join(f"{layer}.{head}" for layer, head in heads.chosen)
    console.print(f"Heads (layer.head) {found}, chosen on {heads.examples} questions, are in {output}", highlight=False)


def print_summary(summary: dict[str, Any]) -> None:
    """
    Show what the labels of a set look like.

    :param summary: See `haystack_distill.teachers.labelling.summary_of`.
    """
    table = Table(show_header=False)
    for name, value in (
        ("rows", summary["rows"]),
        ("labelled", summary["labelled"]),
        ("set aside", len(summary["set_aside"])),
        ("truncated passages", summary["cut_passages"]),
        ("rows with all scores equal", summary["all_equal"]),
        ("score spread (median standard deviation)", f"{summary['spread']:.4g}"),
        ("first passage as the retriever's", f"{100 * summary['first_agrees']:.1f} %"),
        ("Kendall's tau with the retriever", f"{summary['kendall_tau']:.3f}"),
    ):
        table.add_row(name, str(value))
    console.print(table)
    for one in summary["set_aside"][:5]:
        console.print(f"Set aside: {one['query_id']}: {one['reason']}", highlight=False, soft_wrap=True)


def scorer_of(
    reader: str,
    signal: str,
    heads: str | None = None,
    permutations: int = 1,
    dtype: str | None = None,
    api_base_url: str | None = None,
) -> Any:
    """
    The scorer of a signal.

    :param reader: The model.
    :param signal: The signal.
    :param heads: See `TeacherAttentionScorer`.
    :param permutations: See `TeacherAttentionScorer`.
    :param dtype: Of the reader.
    :param api_base_url: See `TeacherLikelihoodScorer`.
    :returns: The component.
    :raises ValueError: If a server is asked for attention.
    """
    from haystack_integrations.components.distill.teacher_attention_scorer import TeacherAttentionScorer
    from haystack_integrations.components.distill.teacher_likelihood_scorer import TeacherLikelihoodScorer

    if signal not in ATTENTION:
        return TeacherLikelihoodScorer(model=reader, signal=signal, dtype=dtype, api_base_url=api_base_url)
    if api_base_url:
        msg = f"A server gives likelihoods, not the attention that {signal!r} reads: use question or pdist."
        raise ValueError(msg)
    return TeacherAttentionScorer(model=reader, signal=signal, heads=heads, permutations=permutations, dtype=dtype)


def _builder(data: Path, output: Path, model: str | None, split: str, top_k: int, progress: bool) -> Any:
    from haystack_distill.cli import _bm25_retriever, _embedding_retriever
    from haystack_distill.data.beir import read_beir
    from haystack_integrations.components.distill.training_set_builder import TrainingSetBuilder

    documents = read_beir(data).documents
    if model is None:
        retriever = _bm25_retriever(documents)
    else:
        retriever = _embedding_retriever(documents, model, output, progress)
    return TrainingSetBuilder(retriever=retriever, top_k=top_k, split=split, output=str(output), progress_bar=progress)


def _right(row: Any) -> int | None:
    """The passage that answers, by judgment or by the labels that are there."""
    if row.labels is not None:
        return row.labels.index(max(row.labels)) if max(row.labels) > 0 else None
    return None if row.teacher_scores is None else row.teacher_scores.index(max(row.teacher_scores))
