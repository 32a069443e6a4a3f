"""`haystack-distill align`: a smaller query encoder for an index that stays as it is."""

import logging
from pathlib import Path
from typing import Annotated

import typer

from haystack_distill.cli import options
from haystack_distill.cli.errors import explained
from haystack_distill.cli.shared import say, show_encoders, show_progress, weights_of
from haystack_distill.evaluation.measures import headline
from haystack_distill.losses.table import ALIGNMENT

logger = logging.getLogger(__name__)


def align(
    folder: Annotated[Path, typer.Argument(help="A BEIR folder: corpus.jsonl, queries.jsonl, qrels/*.tsv.")],
    model: options.Model,
    output: options.Output,
    layers: Annotated[int, typer.Option(help="How many layers stay; 0 asks for a token table.")] = 2,
    keep: Annotated[str | None, typer.Option(help="The layers that stay, as 0,5, or 'kale' for the paper's.")] = None,
    export: options.Exports = None,
    store: options.Store = None,
    queries: Annotated[bool, options.training(help="Align on the train queries too, or on the index alone.")] = True,
    loss: Annotated[str | None, options.training(help=f"Weights of {', '.join(ALIGNMENT)}: mse=1,cosine=2.")] = None,
    fit: Annotated[
        str,
        options.training(
            parser=options.one_of("haystack_distill.align.job", "FITS"),
            metavar="NAME",
            help="trained, or, of a token table, ridge, which takes seconds.",
        ),
    ] = "trained",
    epochs: Annotated[
        int | None,
        options.training(help="Passes over the texts; default: what fits some minutes."),
    ] = None,
    seed: options.Seed = 0,
    progress: options.Progress = True,
) -> None:
    """
    Cut the query encoder of an index, align it with the index, and prove it.

    The proof is on the test split of the folder, or on sentences of the index that were held out.

    Examples:
      haystack-distill align questions --model all-MiniLM-L6-v2 --output two-layers
      haystack-distill align questions --model all-MiniLM-L6-v2 --layers 0 --output table
    """
    with explained(output):
        from haystack_distill.align.layers import named_layers
        from haystack_distill.cli.indexing import checked_corpus, index_for, loaded_encoder
        from haystack_distill.students.cutting import find_stack
        from haystack_integrations.components.distill.kale_aligner import KaleAligner

        show_progress(progress)
        kept, weights = _layer_numbers(keep), weights_of(loss, ALIGNMENT)
        corpus, encoder = checked_corpus(folder), loaded_encoder(model)
        # A number that does not fit is found out before documents are embedded.
        named_layers(layers, tuple(kept) if isinstance(kept, list) else kept, len(find_stack(encoder.model)))
        aligner = KaleAligner(
            **index_for(corpus, store, encoder, model, output, progress),
            teacher=model,
            output=str(output),
            layers=layers,
            keep=kept,
            loss=weights,
            fit=fit,
            epochs=epochs,
            seed=seed,
            export=export,
            progress_bar=progress,
        )
        aligner.loaded = encoder
        has = {split: (folder / "qrels" / f"{split}.tsv").is_file() for split in ("train", "test")}
        if queries and not has["train"]:
            logger.warning("%s has no qrels/train.tsv: aligning with the text of the index alone.", folder)
        metrics = aligner.run(
            queries=str(folder) if queries and has["train"] else None, test=str(folder) if has["test"] else None
        )["metrics"]
    show_encoders(metrics)
    say(headline(metrics))
    say(f"Model, metrics.json and report.html are in {output}")


def _layer_numbers(keep: str | None) -> list[int] | str | None:
    if keep is None or keep == "kale":
        return keep
    try:
        return [int(number) for number in keep.split(",")]
    except ValueError as error:
        msg = f"--keep {keep!r} is neither 'kale' nor layer numbers like 0,5."
        raise typer.BadParameter(msg) from error
