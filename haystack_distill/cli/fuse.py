"""`haystack-distill fuse`: a hybrid of words and vectors whose weights a reader, or judgments, set."""

from pathlib import Path
from typing import Annotated, Any

import typer

from haystack_distill.cli import options
from haystack_distill.cli.errors import explained
from haystack_distill.cli.shared import say, scorer_of, show, show_progress, table_of


def fuse(
    folder: Annotated[Path, typer.Argument(help="A BEIR folder: corpus.jsonl, queries.jsonl, qrels.")],
    model: options.Model,
    output: options.Output,
    student: Annotated[
        str | None, typer.Option(help="The query encoder that serves, such as one that `align` made; default: --model.")
    ] = None,
    reader: options.Reader = None,
    signal: options.Signal = "question",
    heads: options.Heads = None,
    dtype: options.Dtype = None,
    api_base_url: options.ApiBaseUrl = None,
    store: options.Store = None,
    questions: Annotated[int, options.teacher(help="Queries that are labelled, at most.")] = 250,
    split: Annotated[str, options.candidates(help="Whose queries are labelled.")] = "train",
    candidates: Annotated[int, options.candidates(help="Documents of each list that are labelled.")] = 4,
    top_k: Annotated[int, options.candidates(help="Documents of each list that are joined.")] = 100,
    seed: options.Seed = 0,
    progress: options.Progress = True,
) -> dict[str, Any]:
    """
    Fit how BM25 and the encoder are joined, and measure the hybrid beside both and beside reciprocal rank fusion.

    Examples:
      haystack-distill fuse questions --model MiniLM --reader Qwen/Qwen3-0.6B --output hybrid
      haystack-distill fuse questions --model all-MiniLM-L6-v2 --student two-layers --split dev --output judged
    """
    with explained(output):
        from haystack_distill.cli.indexing import Documents
        from haystack_distill.data.beir import split_file, splits_in
        from haystack_distill.files.runs import workspace_for
        from haystack_distill.serving.hub import local_folder
        from haystack_integrations.components.distill.fusion_distiller import FusionDistiller

        show_progress(progress)
        workspace_for(output)
        split_file(folder, split)  # one that is not there is found out before anything is embedded
        documents = Documents.of(folder, store)
        student = local_folder(student or model)  # so is one that is nowhere
        scorer = scorer_of(reader, signal, api_base_url, heads=heads, dtype=dtype) if reader else None
        if scorer:
            scorer.warm_up()  # a reader that does not do is found out before anything is embedded or searched
        distiller = FusionDistiller(
            retrievers={"keyword": documents.by_words(), "dense": documents.by_text(model, output, progress, student)},
            output=str(output),
            scorer=scorer,
            questions=questions,
            candidates=candidates,
            top_k=top_k,
            split=split,
            seed=seed,
            progress_bar=progress,
        )
        judged = str(folder) if "test" in splits_in(folder) else None
        metrics = distiller.run(queries=str(folder), judged=judged)["metrics"]
    show(_table(metrics))
    weights = ", ".join(f"{name} {weight:.2f}" for name, weight in metrics["weights"].items())
    say(f"Judged by {metrics['judged_by']}, {metrics['queries']} queries.")
    say(f"Weights ({metrics['labels']} labelled queries): {weights}. The hybrid is in {output}")
    return metrics


def _table(metrics: dict[str, Any]) -> Any:
    table = table_of("retrieval", "nDCG@10", "95 %", "recall@10", "ms")
    for name in (*metrics["weights"], "rrf", "dbsf", "fitted"):
        row = metrics[name]
        low, high = row["intervals"]["ndcg@10"]
        figures = [f"{row['ndcg@10']:.4f}", f"{low:.3f} to {high:.3f}", f"{row['recall@10']:.4f}"]
        table.add_row(name, *figures, f"{row['encode_ms']:.1f}")
    return table
