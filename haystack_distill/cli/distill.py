"""`haystack-distill distill`: a reader, or judgments, distilled into a retriever."""

from pathlib import Path
from typing import Annotated, Any

import typer

from haystack_distill.cli import options
from haystack_distill.cli.errors import explained
from haystack_distill.cli.shared import say, scorer_of, show, show_progress, table_of, weights_of
from haystack_distill.losses.table import RETRIEVER


def distill(
    folder: Annotated[Path, typer.Argument(help="A BEIR folder: corpus.jsonl, queries.jsonl, qrels/train.tsv.")],
    model: options.Model,
    output: Annotated[Path, typer.Option(help="The folder of the rounds; a run that was killed goes on in it.")],
    student: Annotated[
        str | None, typer.Option(help="The query encoder to train, such as one that `align` made; default: --model.")
    ] = None,
    reader: options.Reader = None,
    signal: options.Signal = "question",
    heads: options.Heads = None,
    dtype: options.Dtype = None,
    api_base_url: options.ApiBaseUrl = None,
    store: options.Store = None,
    bm25: Annotated[bool, options.candidates(help="Find the candidates of the first round by words.")] = False,
    top_k: Annotated[int, options.candidates(help="Candidates of each query.")] = 16,
    rounds: Annotated[int, options.training(help="How often at most; it ends when dev stops improving.")] = 1,
    update: Annotated[
        str | None,
        options.training(
            parser=options.one_of("haystack_distill.distill.job", "UPDATES"),
            metavar="NAME",
            help="query leaves the documents' vectors as they are, both does not; default: query.",
        ),
    ] = None,
    loss: Annotated[str | None, options.training(help=f"Weights of {', '.join(RETRIEVER)}: kl=1,emdr2=2.")] = None,
    epochs: Annotated[int, options.training(help="Passes over the queries in each round.")] = 4,
    batch_size: Annotated[int, options.training(help="Queries a step.")] = 32,
    learning_rate: Annotated[float | None, options.training(help="Default: what suits the student.")] = None,
    judged: Annotated[bool, options.training(help="Select on the dev split and prove on the test split.")] = True,
    seed: options.Seed = 0,
    progress: options.Progress = True,
) -> dict[str, Any]:
    """
    Let a reader, or judgments, say which passages answer the train queries, and train the retriever on them.

    Examples:
      haystack-distill distill questions --model all-MiniLM-L6-v2 --output judged
      haystack-distill distill questions --model MiniLM --reader Qwen/Qwen3-0.6B --rounds 2 --output dkrr
    """
    with explained(output):
        from haystack.utils import ComponentDevice

        from haystack_distill.cli.indexing import Documents, by_vectors, loaded_encoder
        from haystack_distill.data.beir import splits_in
        from haystack_distill.files.processes import first_process_first, process_count, process_number
        from haystack_distill.serving.hub import local_folder
        from haystack_integrations.components.distill.distillation_loop import DistillationLoop

        show_progress(progress)
        weights = weights_of(loss, RETRIEVER)
        documents = Documents.of(folder, store)
        _check_enough(folder, batch_size)
        local_folder(student or model)  # one that is nowhere is found out before anything is embedded
        searched = documents.embedded(loaded_encoder(model), model, output, progress)
        training: dict[str, Any] = {
            "loss": weights,
            "epochs": epochs,
            "seed": seed,
            **({"update": update} if update else {}),
        }
        training |= {"batch_size": batch_size, "learning_rate": learning_rate}
        scorer = scorer_of(reader, signal, api_base_url, heads=heads, dtype=dtype) if reader else None
        loop = DistillationLoop(
            retriever=by_vectors(searched),
            model=student or model,
            scorer=scorer,
            output=str(output),
            rounds=rounds,
            first_retriever=documents.by_words() if bm25 else None,
            top_k=top_k,
            distiller=training,
            progress_bar=progress,
        )
        if scorer and not output.exists() and not process_number():
            scorer.warm_up()  # a reader that does not do is found out before anything is embedded or searched
        if process_count() > 1:
            with first_process_first(cpu=ComponentDevice.resolve_device(None).to_torch_str() == "cpu"):
                searched.count_documents()
        has_splits = judged and splits_in(folder).keys() & {"dev", "test"}
        result = loop.run(queries=str(folder), judged=str(folder) if has_splits else None)
    if process_number():
        return {}  # under torchrun the first process speaks for all
    show(_table(result["rounds"]))
    say(f"Recommended: {result['model_path']}")
    if result["model_path"].endswith("round-0/model"):
        say("No round was better on dev: stay with the retriever as it is.")
    return result


def _check_enough(folder: Path, batch_size: int) -> None:
    """Find out before anything is embedded, searched or labelled that there can't be a batch to train on."""
    from haystack_distill.data.questions import read_questions

    count = len(read_questions(folder))
    if count < batch_size:
        msg = f"{folder} has {count} train queries, less than one batch of {batch_size}: give a smaller --batch-size."
        raise ValueError(msg)


def _table(rounds: list[dict[str, Any]]) -> Any:
    table = table_of(
        "round", "dev\nbefore", "dev\nafter", "nDCG@10\nuntouched", "nDCG@10\nafter", "labels as\nthe retriever", "s"
    )
    for row in rounds:
        figures = [f"{row[name]:.4f}" for name in ("before", "after", "untouched", "student")]
        table.add_row(
            str(row["round"]), *figures, f"{100 * row['first_agrees']:.0f} %", f"{row['training_seconds']:.0f}"
        )
    return table
