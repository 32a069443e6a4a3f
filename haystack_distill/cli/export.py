"""`haystack-distill export`: a query encoder for the runtimes that serve it faster."""

from pathlib import Path
from statistics import median
from typing import Annotated, Any

import typer

from haystack_distill.cli import options
from haystack_distill.cli.errors import explained
from haystack_distill.cli.shared import say, show_progress

TIMED, ROUNDS = 50, 3
"""Dev queries that are timed, and how often."""


def export(
    model: Annotated[Path, typer.Argument(exists=True, file_okay=False, help="A student's folder.")],
    backend: Annotated[options.Backend, typer.Option(help="What will serve it.")] = "onnx",
    precision: Annotated[options.Precision, typer.Option(help="Of its weights.")] = "int8",
    data: Annotated[
        Path | None,
        typer.Option(help="Documents to judge it on, as `align` takes them, if `align` did not make it."),
    ] = None,
) -> dict[str, Any]:
    """
    Export a query encoder for faster serving, beside its folder; refused if its dev nDCG@10 suffers.

    Examples:
      haystack-distill export two-layers
      haystack-distill export my-encoder --backend openvino --precision fp32 --data questions
    """
    with explained():
        from haystack_distill.cli.documents import corpus_of
        from haystack_distill.evaluation.dev_set import dev_set_of_texts, read_dev_set
        from haystack_distill.evaluation.quality import latencies
        from haystack_distill.serving.backends import export_name
        from haystack_distill.serving.export import check_can_export
        from haystack_distill.serving.export import export as export_to
        from haystack_distill.serving.exports import read_export
        from haystack_distill.serving.opening import open_encoder
        from haystack_distill.students.bi_encoder import BiEncoder

        show_progress(True)
        check_can_export([export_name(backend, precision)], layers=1)  # a missing package is found out at once
        if data is None:
            dev = read_dev_set(model)
        else:
            dev = dev_set_of_texts(list(corpus_of(data).documents.values()), BiEncoder.load(str(model)))
        folder = export_to(model, backend, precision, dev)
        made = read_export(folder)
        served = {
            "torch": open_encoder(model, "torch").encode,
            "export": open_encoder(model, backend, precision).encode,
        }
        times = latencies(served, dev.texts[:TIMED], ROUNDS)
        before, now = (float(median(times[name])) for name in served)
    share = f"{100 * made.share:.1f} % of the dev nDCG@10 at full precision"
    say(f"{folder}: {share}, mean cosine {made.cosine:.4f}")
    say(f"{now:.2f} ms a query here, one at a time, {before / now:.1f} times as fast as on torch ({before:.2f} ms)")
    return {"output": str(folder), "share": made.share, "cosine": made.cosine, "ms": now, "torch_ms": before}
