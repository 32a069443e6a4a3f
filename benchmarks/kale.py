"""
Query encoders cut from one teacher, each aligned with one corpus: quality, speed and training time side by side.

    python -m benchmarks.kale --data FOLDER [--json FILE] [--quick] [--passage-weight 0]

FOLDER holds BEIR folders. Rows: the teacher, and per depth the paper's KALE (its loss, its layers, the train queries,
three epochs) and ours, with the train queries and from the index alone, after the plain cut of the same layers; with
another passage weight ours are rows of their own. Everything is judged on the test split. A table that was stopped goes
on when it is started again with the same `--json`.
"""

import gc
import shutil
from pathlib import Path
from typing import Annotated, Any

import typer

from benchmarks.common import (
    CachedTeacher,
    load_teacher,
    minilm,
    open_corpus,
    print_rows,
    queries_to_align,
    read_rows,
    write_rows,
)
from haystack_distill.align.job import align
from haystack_distill.align.settings import KaleSettings
from haystack_distill.align.training import TrainingSettings
from haystack_distill.data.beir import BeirFolder, read_beir
from haystack_distill.data.index import IndexView
from haystack_distill.evaluation.comparison import measure_all, student_system, teacher_system
from haystack_distill.evaluation.held_out import Queries
from haystack_distill.evaluation.quality import compare, latency_ms
from haystack_distill.students.cutting import KALE_LAYERS, find_stack
from haystack_distill.students.layer_search import make_layered
from haystack_distill.students.token_table import make_token_table

CORPORA = ("squadshifts/new_wiki", "squadshifts/amazon", "scifact")
WORK = Path("benchmark_output/kale")
COLUMNS = (
    ("corpus", "corpus", ""),
    ("query encoder", "system", ""),
    ("text", "text", ""),
    ("layers kept", "kept", ""),
    ("nDCG@10", "ndcg@10", ".3f"),
    ("% of teacher", "share", ".1f"),
    ("p", "p", ".3f"),
    ("ms a query", "encode_ms", ".2f"),
    ("times as fast", "speedup", ".1f"),
    ("training s", "training_seconds", ".0f"),
)


def main(
    data: Annotated[Path, typer.Option(help="The folder that holds the BEIR folders.")],
    json: Annotated[Path | None, typer.Option(help="Write the rows to this file.")] = None,
    quick: Annotated[bool, typer.Option(help="One corpus, one epoch: shows that it runs, not how good it is.")] = False,
    corpus: Annotated[list[str] | None, typer.Option(help="BEIR folders under FOLDER.")] = None,
    layers: Annotated[list[int] | None, typer.Option(help="Depths to cut to; 0 is the token table.")] = None,
    teacher: Annotated[
        str | None, typer.Option(help="A sentence-transformers folder; default: the packaged MiniLM.")
    ] = None,
    paper: Annotated[bool, typer.Option(help="Whether to run the paper's recipe too.")] = True,
    passage_weight: Annotated[
        float, typer.Option(help="How far sentences are moved toward their passages.")
    ] = KaleSettings.passage_weight,
) -> None:
    """Print the table."""
    encoder = load_teacher(teacher or minilm())
    rows = read_rows(json)
    done = {_is(row)[:3] for row in rows}
    for name in corpus or (CORPORA[:1] if quick else CORPORA):
        judged, index = open_corpus(data / name, encoder)
        for depth in layers or ([0, 1] if quick else [0, 1, 2, 3]):
            for system, text, settings in recipes(encoder, depth, quick, paper, passage_weight):
                if (name, system, text) in done:
                    continue
                given = Queries() if text == "index alone" else queries_to_align(data / name, judged)
                found = rows_of(name, system, text, settings, encoder, index, judged, given)
                before = {_is(row) for row in rows}
                rows += [row for row in found if _is(row) not in before]
                write_rows(json, rows)
                print_rows(found, COLUMNS, "")
    add_latencies(rows, encoder, read_beir(data / (corpus or CORPORA)[0]).texts_of("test"))
    write_rows(json, rows)
    print_rows(rows, COLUMNS, f"Teacher: {teacher or 'all-MiniLM-L6-v2'}")


def _is(row: dict[str, Any]) -> tuple[str, ...]:
    """What tells one row from another: a plain cut is trained on nothing, and two recipes may keep other layers."""
    return row["corpus"], row["system"], row["text"], row["kept"]


def recipes(
    encoder: CachedTeacher, depth: int, quick: bool, paper: bool, weight: float
) -> list[tuple[str, str, KaleSettings]]:
    """What is trained at a depth: (system, text, settings)."""
    training = TrainingSettings(epochs=1 if quick else None)
    ours = KaleSettings(layers=depth, passage_weight=weight, training=training)
    name = f"ours, {depth}" if weight == KaleSettings.passage_weight else f"ours, {depth}, weight {weight:g}"
    chosen = [(name, "train queries + index", ours), (name, "index alone", ours)]
    if paper and depth in KALE_LAYERS.get(len(find_stack(encoder.model)), {}):
        chosen.insert(0, (f"KALE as published, {depth}", "train queries", published_settings(depth, 1 if quick else 3)))
    return chosen


def published_settings(layers: int, epochs: int = 3) -> KaleSettings:
    """The paper's recipe: its loss and its layers, not folded, on queries alone, at the paper's rate."""
    training = TrainingSettings(epochs, batch_size=32, learning_rate=5e-5, embedding_learning_rate=5e-5)
    return KaleSettings(
        layers, keep="kale", loss={"kale": 1.0}, folded=False, index_text=False, passage_weight=0, training=training
    )


def rows_of(
    corpus: str,
    system: str,
    text: str,
    settings: KaleSettings,
    encoder: CachedTeacher,
    index: IndexView,
    judged: BeirFolder,
    given: Queries,
) -> list[dict[str, Any]]:
    """Train one student and measure it beside its teacher and the plain cut of its layers: a row for each."""
    work = WORK / f"{corpus}-{system}-{text}".replace("/", "-").replace(" ", "_")
    asked = judged.texts_of("test")
    aligned = align(index, encoder, settings, work, given, test=asked)
    shutil.rmtree(work)
    gc.collect()  # trainers are full of cycles, and one with a deep teacher holds a gigabyte
    systems = [
        teacher_system(encoder),
        student_system(f"cut only, {settings.layers}", aligned.cut_only),
        student_system(system, aligned.student),
    ]
    measured = measure_all(systems, index, judged.queries, judged.qrels["test"])
    teacher = measured["teacher"].quality
    kept = " ".join(map(str, aligned.kept_layers)) or "table"
    rows = [
        {
            "corpus": corpus,
            "system": name,
            "text": "none",
            "layers": one.system.layers,
            "kept": "all" if name == "teacher" else kept,
            "ndcg@10": one.quality.mean(),
            "share": 100 * one.quality.mean() / teacher.mean(),
            "p": None if name == "teacher" else compare(one.quality, teacher)["p"],
        }
        for name, one in measured.items()
    ]
    rows[-1] |= {
        "text": text,
        "training_seconds": aligned.training.seconds,
        "texts": aligned.texts,
        "history": aligned.training.history,
    }
    return rows


def add_latencies(rows: list[dict[str, Any]], encoder: CachedTeacher, queries: list[str]) -> None:
    """
    Time encoders of all depths in turn, one query at a time.

    Weights don't matter to the clock, so untrained cuts stand for all students of their depth.
    """
    depths = sorted({row["layers"] for row in rows if row["system"] != "teacher"})
    systems = {"teacher": teacher_system(encoder)}
    for depth in depths:
        cut = make_layered(encoder, tuple(range(depth)), [], folded=False) if depth else make_token_table(encoder)
        systems[str(depth)] = student_system(str(depth), cut)
    single = {name: (lambda text, system=system: system.encode([text])) for name, system in systems.items()}
    milliseconds = latency_ms(single, queries[:: max(1, len(queries) // 100)][:100])
    for row in rows:
        row["encode_ms"] = milliseconds["teacher" if row["system"] == "teacher" else str(row["layers"])]
        row["speedup"] = milliseconds["teacher"] / row["encode_ms"]


if __name__ == "__main__":
    typer.run(main)
