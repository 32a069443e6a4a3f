"""
G2R: replies out of a response set, from an encoder that was or was not taught by dialogues and by a generator.

    python -m benchmarks.g2r [--data FOLDER] [--generator MODEL] [--judge NAME=MODEL] [--json FILE] [--quick]

FOLDER holds `train.jsonl`, `test.jsonl` and perhaps `dev.jsonl`, lines with `turns`; without it the conversations of
the package chitchat-dataset are split by conversation. Systems, all from one encoder and in as many epochs: untouched;
trained on the human replies; on generated ones too (G2R, data level); with the scores of a teacher (`data+ll`, as
published, and with more weight; `data+mi`; `data+similarity`, how near a reply is to what the generator wrote;
`data+control`, a teacher that knows which reply is the human's: what it can't move, no model level can); `strong`
(human replies, and a teacher's scores of what the `data` model mines); query encoders of two layers and none, aligned
with the response set of `data`. Rows that no retriever makes: `human`, `random`, `generator`.

hits@k: the human reply among the first k of 100 candidates. recall@k: the same in the whole response set, to which the
test replies are added. The reply that is chosen comes from the response set without them; `generator_loglik` is what
the generator thinks of it, `judge:NAME` what a model that taught nobody does (see `benchmarks.judges`), dist-n the
share of its n-grams that are distinct over all replies. Of three replies `near` is the cosine of the nearest to the
human one, `alike` that of the three to each other. Gains are over the step before (`Recipe.before`), with 95 %
bootstrap intervals over the contexts. Latency: see `benchmarks.g2r_latency`.

Everything is kept under `benchmark_output`, by content; a table that was stopped goes on with the same `--json`.
"""

from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer

from benchmarks.common import minilm, print_rows, read_rows, write_rows
from benchmarks.g2r_latency import add_latencies
from benchmarks.g2r_systems import BEFORE, QUICK, SYSTEMS, WORK, Bench, Sizes
from benchmarks.judges import Judge, judges_of
from benchmarks.replies import CHOSEN, HITS, JUDGED, LATENCY, SETS, add_gains, diversity, quality_of
from demo.packaged import chitchat, smollm2
from haystack_distill.evaluation.quality import compare


def main(
    data: Annotated[Path | None, typer.Option(help="train.jsonl and test.jsonl; default: chitchat-dataset.")] = None,
    json: Annotated[Path | None, typer.Option(help="Write the rows to this file.")] = None,
    quick: Annotated[bool, typer.Option(help="Very little of everything: shows that it runs.")] = False,
    generator: Annotated[str | None, typer.Option(help="Folder, hub name or GGUF file; default: SmolLM2.")] = None,
    judge: Annotated[list[str] | None, typer.Option(help="NAME=MODEL of a judge; may be repeated.")] = None,
    encoder: Annotated[str | None, typer.Option(help="A sentence-transformers folder; default: MiniLM.")] = None,
    dtype: Annotated[str | None, typer.Option(help="Of generator and judges: float32 or bfloat16.")] = None,
    system: Annotated[list[str] | None, typer.Option(help="Only these systems.")] = None,
    contexts: Annotated[int | None, typer.Option(help="Contexts to train on, about.")] = None,
    replies: Annotated[int | None, typer.Option(help="Generated replies for each.")] = None,
    negatives: Annotated[int | None, typer.Option(help="Random negatives a step; published: 512.")] = None,
    test: Annotated[int | None, typer.Option(help="Contexts to test on.")] = None,
    judged: Annotated[int | None, typer.Option(help="Of how many the chosen replies are judged.")] = None,
    responses: Annotated[int | None, typer.Option(help="Size of the response set.")] = None,
    epochs: Annotated[int | None, typer.Option(help="Of every recipe.")] = None,
    history: Annotated[int | None, typer.Option(help="Turns of a context.")] = None,
) -> None:
    """Print the table."""
    named = {"contexts": contexts, "replies": replies, "negatives": negatives, "test": test, "judged": judged}
    named |= {"responses": responses, "epochs": epochs, "history": history}
    sizes = replace(QUICK if quick else Sizes(), **{key: value for key, value in named.items() if value is not None})
    bench = Bench(data or chitchat(WORK), generator or smollm2(), dtype, encoder or minilm(), sizes)
    judges = judges_of(judge or [], bench.work, dtype)
    rows = read_rows(json)
    for name in system or SYSTEMS:
        if not any(row["data"] == bench.name and row["system"] == name for row in rows):
            rows.append({"data": bench.name, "system": name, **measured(bench, name)})
            write_rows(json, rows)
            print_rows(rows[-1:], HITS, "")
    own = [row for row in rows if row["data"] == bench.name]
    for one in judges:
        for row in own:
            if f"judge:{one.name}" not in row:
                judge_row(bench, row, one)
                write_rows(json, rows)
    add_gains(own, BEFORE)
    found = [row for row in own if "hits@1" in row]
    if any("ms" not in row for row in found):
        add_latencies(bench, found)
    write_rows(json, rows)
    print_rows(rows, HITS, "The human reply among 100 candidates (hits) and the whole response set (recall)")
    print_rows(rows, CHOSEN, f"The replies that are chosen; generator {Path(bench.generator).name}")
    print_rows([row for row in rows if "set_gain" in row], SETS, "Three replies to choose from (`ReplySelector(k=3)`)")
    for one in judges:
        columns = [(heading, key.format(one.name), form) for heading, key, form in JUDGED]
        print_rows(rows, columns, f"What {one.name} thinks of them")
    print_rows([row for row in rows if "ms" in row], LATENCY, "One dialogue at a time")


def measured(bench: Bench, system: str) -> dict[str, Any]:
    """Hits, recall, and what the chosen replies are like."""
    chosen, quality = bench.chosen(system)
    figures = {"generator_loglik": bench.likelihoods(chosen[: bench.sizes.judged])}
    row: dict[str, Any] = {name: float(values.mean()) for name, values in quality.items()}
    if quality:
        hits = quality_of({"hits@1": quality["hits@1"]}).summary()["hits@1"]
        sets, first = (quality_of({"near": quality[name]}) for name in ("set_near", "top_near"))
        gain = compare(sets, first, "near")
        row |= {"hits@1_low": hits["low"], "hits@1_high": hits["high"]}
        row |= {"set_gain": gain["difference"], "set_low": gain["low"], "set_high": gain["high"]}
        figures["hits@1"] = quality["hits@1"].astype(float).tolist()
    return {
        **row,
        **{name: float(np.mean(values)) for name, values in figures.items()},
        **diversity(chosen),
        "responses": len(bench.pool()),
        "contexts": len(bench.test),
        "per_context": figures,
    }


def judge_row(bench: Bench, row: dict[str, Any], judge: Judge) -> None:
    """Add what a judge thinks of the replies of a row."""
    replies = bench.kept(row["system"])[: bench.sizes.judged]
    scores = judge.scores(bench.test[: len(replies)], replies)
    row["per_context"][f"judge:{judge.name}"] = scores
    row[f"judge:{judge.name}"] = float(np.mean(scores))


if __name__ == "__main__":
    typer.run(main)
