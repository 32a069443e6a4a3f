"""`haystack-distill align`: a smaller query encoder for an index that stays as it is."""

import logging
from pathlib import Path
from typing import Annotated, Any

import typer

from haystack_distill.cli import options
from haystack_distill.cli.errors import explained
from haystack_distill.cli.shared import say, show_aligned, show_progress, weights_of
from haystack_distill.losses.table import ALIGNMENT

logger = logging.getLogger(__name__)


def align(
    model: options.Model,
    output: options.Output,
    folder: Annotated[
        Path | None,
        typer.Argument(help="A folder of texts, or a BEIR folder: corpus.jsonl, queries.jsonl, qrels/*.tsv."),
    ] = None,
    layers: Annotated[
        int | None, typer.Option(help="How many layers stay, 2 by default; 0 asks for a token table.")
    ] = None,
    keep: Annotated[str | None, typer.Option(help="The layers that stay, as 0,5, or 'kale' for the paper's.")] = None,
    student: Annotated[
        str | None, typer.Option(help="Another encoder that is to search this index, which is mapped and not cut.")
    ] = None,
    update: Annotated[
        str | None, typer.Option(help="A student of this index that is to learn what came into it since.")
    ] = None,
    export: options.Exports = None,
    store: options.Store = None,
    queries: Annotated[bool, options.training(help="Align on the train queries too, or on the index alone.")] = True,
    text: Annotated[
        list[str] | None,
        options.training(
            help="General text to align on beside the index: file, folder or data set; can be given again."
        ),
    ] = None,
    loss: Annotated[str | None, options.training(help=f"Weights of {', '.join(ALIGNMENT)}: mse=1,cosine=2.")] = None,
    fit: Annotated[
        str | None,
        options.training(
            parser=options.one_of("haystack_distill.align.settings", "FITS"),
            metavar="NAME",
            help="trained, or, of a token table or a student, ridge, which takes seconds.",
        ),
    ] = None,
    epochs: Annotated[
        int | None,
        options.training(help="Passes over the texts; default: what fits some minutes."),
    ] = None,
    seed: options.Seed = 0,
    workers: options.Workers = 1,
    progress: options.Progress = True,
) -> dict[str, Any]:
    """
    Cut the query encoder of an index, align it with the index, and prove it.

    The proof is on the test split of the folder, or on sentences of the index that were held out.

    Examples:
      haystack-distill align texts --model all-MiniLM-L6-v2 --output two-layers
      haystack-distill align questions --store store.yaml --model all-MiniLM-L6-v2 --layers 0 --output table
    """
    with explained(output):
        from haystack_distill.align.update import ABOUT
        from haystack_distill.cli.indexing import Documents, loaded_encoder
        from haystack_distill.data.beir import splits_in
        from haystack_distill.files.processes import process_number
        from haystack_distill.serving.hub import local_folder
        from haystack_integrations.components.distill.kale_aligner import KaleAligner

        show_progress(progress)
        kept, weights = _layer_numbers(keep), weights_of(loss, ALIGNMENT)
        documents, encoder = Documents.of(folder, store), loaded_encoder(model)
        aligner = KaleAligner(
            **documents.index(encoder, model, output, progress),
            teacher=model,
            output=str(output),
            student=student,
            update=update,
            layers=layers,
            keep=kept,
            text=text,
            loss=weights,
            fit=fit,
            epochs=epochs,
            seed=seed,
            export=export,
            num_workers=workers,
            progress_bar=progress,
        )
        aligner.loaded = encoder
        aligner.settings().kept(encoder)  # a number that does not fit is found out before documents are embedded
        if student or update:
            local_folder(student or update or "")  # so is one that is nowhere
        splits = splits_in(folder) if folder else {}
        train, test = (str(folder) if split in splits else None for split in ("train", "test"))
        if queries and not (train or update):
            logger.info("There are no train queries: aligning with the text of the index alone.")
        metrics = aligner.run(queries=train if queries and not update else None, test=test)["metrics"]
    if process_number():
        return {}  # under torchrun the first process speaks for all
    show_aligned(metrics, output)
    if update:
        for label in ABOUT.values():
            say(f"{label}: {metrics['facts'].get(label, 'none was held out')}")
    say(f"It takes the place of the query embedder: KaleQueryEncoder(model={str(output)!r}), as query.yaml has it.")
    if (metrics["kept_layers"] or student) and not export:
        say(f"Next, for the speed of ONNX in int8: haystack-distill export {output}")
    return metrics


def _layer_numbers(keep: str | None) -> list[int] | str | None:
    if keep is None or keep == "kale":
        return keep
    try:
        return [int(number) for number in keep.split(",")]
    except ValueError as error:
        msg = f"--keep {keep!r} is neither 'kale' nor layer numbers like 0,5."
        raise typer.BadParameter(msg) from error
