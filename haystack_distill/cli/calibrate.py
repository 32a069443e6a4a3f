"""`haystack-distill calibrate`: when an encoder of a cascade answers itself."""

from pathlib import Path
from typing import Annotated, Any

import typer

from haystack_distill.cli.errors import explained
from haystack_distill.cli.shared import say


def calibrate(
    pipeline: Annotated[Path, typer.Argument(help="A pipeline YAML with a DistilledRetriever that has fallbacks.")],
    queries: Annotated[str, typer.Argument(help="A JSONL file of queries, or a BEIR folder.")],
    max_share: Annotated[
        float | None, typer.Option(help="How many queries an encoder may send on at most, as 0.1.")
    ] = None,
    max_loss: Annotated[float | None, typer.Option(help="How much of the last one's nDCG@10 may be lost.")] = None,
    split: Annotated[str, typer.Option(help="Of a BEIR folder with judgments: which ones.")] = "dev",
) -> dict[str, Any]:
    """
    Find out when each encoder of a cascade is sure enough, to one of two targets, with or without judgments.

    Examples:
      haystack-distill calibrate cascade.yaml log.jsonl --max-share 0.3
      haystack-distill calibrate cascade.yaml questions --max-loss 0.02
    """
    with explained():
        from haystack_distill.data.questions import read_questions
        from haystack_integrations.components.distill.pipelines import load_pipeline

        loaded = load_pipeline(pipeline)
        try:
            questions = read_questions(queries, split)
            texts = {question.id: question.text for question in questions}
            judged = {question.id: question.judged for question in questions if question.judged}
            retriever = _cascade_in(loaded.pipeline, pipeline)
            found = retriever.calibrate(texts, judged, max_loss=max_loss, max_share=max_share)
        finally:
            loaded.pipeline.close()
    for name, threshold, share in zip(found["encoders"], found["values"], found["sent"], strict=False):
        say(f"{name} answers where it is surer than {threshold:.4f}; {share:.1%} of the queries went on from it")
    say(f"{found['lost']:.1%} of the nDCG@10 of {found['encoders'][-1]} was lost, by {found['judged_by']}")
    say(f"Calibrated on {found['queries']} queries; written to {found['file']}")
    return found


def _cascade_in(pipeline: Any, file: Path) -> Any:
    """The one cascade of a pipeline."""
    parts = [part for _, part in pipeline.walk() if getattr(part, "fallbacks", None)]
    if len(parts) != 1:
        msg = f"{file} has {len(parts)} DistilledRetrievers with fallbacks, and one is calibrated: see docs/cascade.md."
        raise ValueError(msg)
    return parts[0]
