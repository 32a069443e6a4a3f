"""`haystack-distill heads`: the attention heads of a reader that find evidence."""

from pathlib import Path
from typing import Annotated, Any

import typer

from haystack_distill.cli import options
from haystack_distill.cli.errors import explained
from haystack_distill.cli.shared import say, show_progress


def heads(
    training_set: Annotated[Path, typer.Argument(help="With judgments, or labelled by another signal.")],
    reader: Annotated[str, typer.Option(help="A causal language model: folder, hub name or GGUF file.")],
    output: Annotated[Path, typer.Option(help="The .json file to write; a picture goes beside it.")],
    method: Annotated[options.Method, typer.Option(help="How heads are chosen, see docs/teachers.md.")] = "core",
    count: Annotated[int, typer.Option(help="How many heads.")] = 8,
    questions: Annotated[int, typer.Option(help="On how many questions.")] = 64,
    dtype: options.Dtype = None,
) -> dict[str, Any]:
    """
    Choose the few attention heads that find the evidence, for the signal `heads`.

    Examples:
      haystack-distill heads labelled --reader Qwen/Qwen3-0.6B --output heads.json
      haystack-distill heads labelled --reader Qwen/Qwen3-0.6B --method qr --count 16 --output heads.json
    """
    with explained():
        from haystack_distill.data.training_set import TrainingSet
        from haystack_distill.teachers.causal import CausalReader
        from haystack_distill.teachers.heads import select_heads
        from haystack_distill.teachers.in_context import head_examples
        from haystack_distill.teachers.readers import load_reader
        from haystack_distill.teachers.scores import Candidates

        show_progress(True)
        known = [(row, best) for row in TrainingSet.open(training_set) if (best := _best(row)) is not None][:questions]
        rows = [Candidates(row.query, row.documents, row.answers) for row, _ in known]
        loaded = load_reader(reader, dtype=dtype)
        if not isinstance(loaded, CausalReader):
            msg = f"{reader} is an encoder-decoder, and heads are chosen in decoder-only models: use dkrr or adist."
            raise ValueError(msg)
        examples = head_examples(loaded, rows, [best for _, best in known])
        chosen = select_heads(list(examples), model=reader, method=method, count=count)
        chosen.save(output)
    names = ", ".join(f"{layer}.{head}" for layer, head in chosen.chosen)
    say(f"Heads (layer.head) {names}, chosen on {chosen.examples} questions, are in {output}")
    return {"output": str(output), "heads": chosen.chosen, "questions": chosen.examples}


def _best(row: Any) -> int | None:
    """The passage that answers, by judgment or by the teacher's scores that are there."""
    if row.labels is not None:
        return row.labels.index(max(row.labels)) if max(row.labels) > 0 else None
    return None if row.teacher_scores is None else row.teacher_scores.index(max(row.teacher_scores))
