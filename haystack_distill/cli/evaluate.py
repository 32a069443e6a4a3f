"""`haystack-distill evaluate`: students beside the encoder of the index."""

from pathlib import Path
from typing import Annotated, Any

import typer

from haystack_distill.cli import options
from haystack_distill.cli.errors import explained
from haystack_distill.cli.shared import say, show_encoders, show_progress
from haystack_distill.evaluation.measures import headline


def evaluate(
    folder: Annotated[Path, typer.Argument(help="A BEIR folder.")],
    model: options.Model,
    student: Annotated[list[Path], typer.Option(help="A student's folder; can be given several times.")],
    output: options.Output,
    fusion: Annotated[
        str | None, typer.Option(help="A folder that `fuse` wrote: each encoder is measured in that hybrid, too.")
    ] = None,
    split: Annotated[str, typer.Option(help="Which judgments to use.")] = "test",
    store: options.Store = None,
) -> dict[str, Any]:
    """
    Measure students beside the encoder of the index, alone and in a hybrid, and write metrics.json and report.html.

    Examples:
      haystack-distill evaluate questions --model all-MiniLM-L6-v2 --student table --output evaluation
      haystack-distill evaluate questions --model all-MiniLM-L6-v2 --student a --student b --fusion hybrid --output e
    """
    with explained(output):
        from haystack_distill.cli.indexing import Documents, loaded_encoder
        from haystack_distill.data.beir import split_file
        from haystack_distill.files.layout import MODULES
        from haystack_integrations.components.distill.retrieval_evaluator import RetrievalEvaluator

        show_progress(True)
        students = {path.resolve().name: str(path) for path in student}
        if len(students) < len(student):
            msg = f"Two of the students are called alike ({', '.join(map(str, student))}): rename a folder."
            raise ValueError(msg)
        for path in student:
            if not (path / MODULES).is_file():
                msg = f"The student {path} is no sentence-transformers model (it has no {MODULES})."
                raise FileNotFoundError(msg)
        documents = Documents.of(folder, store)
        split_file(folder, split)  # one that is not there is found out before anything is embedded
        encoder = loaded_encoder(model)
        evaluator = RetrievalEvaluator(
            **documents.index(encoder, model, output, progress=True),
            teacher=model,
            students=students,
            output=str(output),
            split=split,
            retrievers={"keyword": documents.by_words()} if fusion else None,
            fusion=fusion,
        )
        evaluator.loaded = encoder
        metrics = evaluator.run(queries=str(folder))["metrics"]
    show_encoders(metrics)
    last = list(students)[-1]
    say(f"{last}: {headline(metrics)}")
    if fusion:
        fitted = metrics["hybrids"]["fitted"][last]
        say(f"{last} and the teacher both in the fitted hybrid: {headline({**metrics, **fitted})}")
    say(f"metrics.json and report.html are in {output}")
    return metrics
