"""
One labelled training set, each loss in turn, same seeds and budget: what the default rests on.

    python -m benchmarks.losses --data BEIR_FOLDER [--split dev] [--questions 1000] [--json FILE] [--quick]

Labels are those of benchmarks.dkrr (and kept with them). Checkpoints are selected on held-out questions that the
teacher judges; the table is measured on the dev split, never on test, and no question of either is trained on. A table
that was stopped goes on when it is started again with the same `--json`.
"""

import shutil
from pathlib import Path
from typing import Annotated

import numpy as np
import typer

from benchmarks.common import CACHE, minilm, print_rows, read_rows, write_rows
from benchmarks.dkrr import Bench
from benchmarks.labels import NamedReader, labelled
from demo.packaged import smollm2
from haystack_distill.distill.job import DistillationSettings, distill
from haystack_distill.distill.proof import open_student
from haystack_distill.distill.training import RetrieverTraining
from haystack_distill.evaluation.quality import measure

LOSSES: tuple[tuple[str, dict[str, float], float | str, float, int], ...] = (
    ("kl, as published (temperature 1)", {"kl": 1.0}, 1.0, 0.3, 0),
    ("kl", {"kl": 1.0}, "entropy", 0.3, 0),
    ("margin_mse", {"margin_mse": 1.0}, "entropy", 0.3, 0),
    ("emdr2", {"emdr2": 1.0}, "entropy", 0.3, 0),
    ("contrastive", {"contrastive": 1.0}, "entropy", 0.3, 0),
    ("listwise, entropy 0.1", {"listwise": 1.0}, "entropy", 0.1, 0),
    ("listwise, entropy 0.3", {"listwise": 1.0}, "entropy", 0.3, 0),
    ("listwise, entropy 0.6", {"listwise": 1.0}, "entropy", 0.6, 0),
    ("listwise, LoRA of rank 16", {"listwise": 1.0}, "entropy", 0.3, 16),
    ("listwise + contrastive", {"listwise": 1.0, "contrastive": 1.0}, "entropy", 0.3, 0),
)
COLUMNS = (
    ("data", "data", ""),
    ("loss", "loss", ""),
    ("nDCG@10", "ndcg@10", ".4f"),
    ("low", "ci_low", ".4f"),
    ("high", "ci_high", ".4f"),
    ("teacher temperature", "temperature", ".3g"),
    ("s", "seconds", ".0f"),
)


def main(
    data: Annotated[Path, typer.Option(help="A BEIR folder.")],
    json: Annotated[Path | None, typer.Option(help="Write the rows to this file.")] = None,
    teacher: Annotated[str, typer.Option(help="The likelihood signal that labels.")] = "question",
    reader: Annotated[str | None, typer.Option(help="Folder, hub name or GGUF file; default: SmolLM2.")] = None,
    dtype: Annotated[str | None, typer.Option(help="Of the reader: float32 or bfloat16.")] = None,
    questions: Annotated[int, typer.Option(help="Train questions.")] = 1000,
    top_k: Annotated[int, typer.Option(help="Candidates of each question.")] = 16,
    epochs: Annotated[int, typer.Option(help="Of every training.")] = 4,
    split: Annotated[str, typer.Option(help="What is measured on; defaults are never chosen on test.")] = "dev",
    quick: Annotated[bool, typer.Option(help="Few questions, two losses: shows that it runs.")] = False,
) -> None:
    """Print the table."""
    name = reader or smollm2()
    bench = Bench(data, None, 4 if quick else top_k, epochs, NamedReader(name, dtype))
    ids = sorted(bench.corpus.qrels["train"])
    np.random.default_rng(0).shuffle(ids)
    ids = ids[: 48 if quick else questions]
    first = bench.training_rows(bench.searched(bench.encoder.model, ids, bench.index, bench.top_k))
    labels, _ = labelled(first, teacher, bench.reader, source=str(data))
    qrels, asked = bench.corpus.qrels[split], bench.corpus.texts_of(split)
    rows = read_rows(json)
    if not rows:
        untouched = measure(bench.searched(bench.encoder.model, list(qrels), bench.index), qrels).summary()["ndcg@10"]
        rows = [{"data": data.name, "loss": "untouched", **_figures(untouched)}]
    done = {row["loss"] for row in rows}
    for title, loss, temperature, entropy, rank in LOSSES[:2] if quick else LOSSES:
        if title in done:
            continue
        student = open_student(bench.encoder, minilm())
        settings = DistillationSettings(
            loss=loss,
            teacher_temperature=temperature,
            target_entropy=entropy,
            training=RetrieverTraining(1 if quick else epochs, 16 if quick else 32, lora_rank=rank),
        )
        work = CACHE / "losses-run"
        shutil.rmtree(work, ignore_errors=True)
        found = distill(student, labels, bench.index, settings, work, test=asked)
        summary = measure(bench.searched(student, list(qrels), bench.index), qrels).summary()["ndcg@10"]
        made = {"temperature": found.teacher_temperature, "seconds": found.training.seconds}
        rows.append({"data": data.name, "loss": title, **_figures(summary), **made})
        write_rows(json, rows)
        print_rows(rows[-1:], COLUMNS, "")
    print_rows(rows, COLUMNS, f"Labels: {teacher} of {Path(name).name}; {split} split of {data.name}")


def _figures(summary: dict[str, float]) -> dict[str, float]:
    return {"ndcg@10": summary["value"], "ci_low": summary["low"], "ci_high": summary["high"]}


if __name__ == "__main__":
    typer.run(main)
