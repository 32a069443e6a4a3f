# SPDX-FileCopyrightText: 2026-present haystack-distill contributors
#
# SPDX-License-Identifier: Apache-2.0

"""The command that distils a reader into a retriever."""

from pathlib import Path
from typing import Annotated, Any

import typer
from haystack import Pipeline
from haystack.utils import ComponentDevice
from rich.console import Console
from rich.table import Table

console = Console()


def distill(
    folder: Annotated[Path, typer.Argument(help="A BEIR folder: corpus.jsonl, queries.jsonl, qrels/train.tsv.")],
    model: Annotated[str, typer.Option(help="The encoder of the documents: folder or hub name.")],
    output: Annotated[Path, typer.Option(help="The folder of the rounds; a run that was killed goes on in it.")],
    reader: Annotated[
        str | None,
        typer.Option(
            help="The model that labels: folder, hub name or GGUF file; default: the judgments are the teacher."
        ),
    ] = None,
    student: Annotated[
        str | None, typer.Option(help="The query encoder to train, such as one that `align` made; default: --model.")
    ] = None,
    signal: Annotated[str, typer.Option(help="What labels: question, pdist, dkrr, ..., see `label`.")] = "question",
    heads: Annotated[
        str | None, typer.Option(help="For the signal heads: what `haystack-distill heads` wrote.")
    ] = None,
    rounds: Annotated[int, typer.Option(help="How often at most; it ends when dev stops improving.")] = 1,
    update: Annotated[
        str, typer.Option(help="query leaves the documents' vectors as they are, both does not.")
    ] = "query",
    bm25: Annotated[bool, typer.Option(help="Find the candidates of the first round by words.")] = False,
    top_k: Annotated[int, typer.Option(help="Candidates of each query.")] = 16,
    loss: Annotated[str | None, typer.Option(help="Weighted losses, as listwise=1,margin_mse=0.1.")] = None,
    epochs: Annotated[int, typer.Option(help="Passes over the queries in each round.")] = 4,
    batch_size: Annotated[int, typer.Option(help="Queries a step.")] = 32,
    learning_rate: Annotated[float | None, typer.Option(help="Default: what suits the student.")] = None,
    dtype: Annotated[str | None, typer.Option(help="Of the reader: float32 or bfloat16.")] = None,
    judged: Annotated[bool, typer.Option(help="Select on the dev split and prove on the test split.")] = True,
    seed: Annotated[int, typer.Option(help="Of order and sampling.")] = 0,
    progress: Annotated[bool, typer.Option(help="Show progress bars.")] = True,
) -> None:
    """Let a reader, or judgments, say which passages answer the train queries, and train the retriever on them."""
    from haystack.components.retrievers.in_memory import InMemoryEmbeddingRetriever

    from haystack_distill.cli import (
        _bm25_retriever,
        _explained,
        _indexed,
        _show_progress,
        _weights,
    )
    from haystack_distill.cli.label import scorer_of
    from haystack_distill.data.beir import read_beir
    from haystack_distill.files.processes import first_process_first, process_number
    from haystack_integrations.components.distill.distillation_loop import DistillationLoop

    weights = _weights(loss)
    _show_progress(progress)

    def job() -> dict[str, Any]:
        with first_process_first(cpu=ComponentDevice.resolve_device(None).to_torch_str() == "cpu"):
            documents = read_beir(folder).documents
            store = _indexed(documents, model, output.with_name(f"{output.name}.index"), progress)
        training: dict[str, Any] = {"update": update, "loss": weights, "epochs": epochs, "seed": seed}
        training |= {"batch_size": batch_size, "learning_rate": learning_rate}
        loop = DistillationLoop(
            retriever=InMemoryEmbeddingRetriever(store),
            model=student or model,
            scorer=scorer_of(reader, signal, heads, dtype=dtype) if reader else None,
            output=str(output),
            rounds=rounds,
            first_retriever=_bm25_retriever(documents) if bm25 else None,
            top_k=top_k,
            distiller=training,
            progress_bar=progress,
        )
        pipeline = Pipeline()
        pipeline.add_component("loop", loop)
        has_splits = judged and any((folder / "qrels" / f"{split}.tsv").is_file() for split in ("dev", "test"))
        inputs = {"queries": str(folder), "judged": str(folder) if has_splits else None}
        return pipeline.run({"loop": inputs})["loop"]

    result = _explained(job)
    if process_number():
        return  # under torchrun the first process speaks for all
    _print_rounds(result["rounds"])
    console.print(f"Recommended: {result['model_path']}", highlight=False, soft_wrap=True)
    if result["model_path"].endswith("round-0/model"):
        console.print("No round was better on dev: stay with the retriever as it is.", highlight=False, soft_wrap=True)


def _print_rounds(rounds: list[dict[str, Any]]) -> None:
    table = Table()
    for column in (
        "round",
        "dev before",
        "dev after",
        "nDCG@10 untouched",
        "nDCG@10 after",
        "labels as the retriever",
        "s",
    ):
        table.add_column(column, justify="right")
    for row in rounds:
        table.add_row(
            str(row["round"]),
            f"{row['before']:.4f}",
            f"{row['after']:.4f}",
            f"{row['untouched']:.4f}",
            f"{row['student']:.4f}",
            f"{100 * row['first_agrees']:.0f} %",
            f"{row['training_seconds']:.0f}",
        )
    console.print(table)
