"""
A new encoder on an old index: what mapping its queries keeps of embedding all documents again.

    python -m benchmarks.new_encoder --data BEIR_FOLDER --new MODEL [--old MODEL] [--json FILE] [--quick]

Rows, all on the test queries of the folder, none of which was learnt: the encoder of the index as it is; the new one
with a map fitted on the index's sentences and some documents (`KaleAligner(student=...)`), without and with the move of
the sentences' targets toward the passages they stand in; with a map from its document vectors to the stored ones, the
linear one of Drift-Adapter (arXiv 2509.23471), for which all documents are embedded again; and the new encoder on an
index of its own. `seconds` are those that the way took on this machine, reading of texts included.
"""

import shutil
import time
from pathlib import Path
from typing import Annotated, Any

import typer

from benchmarks.common import load_teacher, minilm, open_corpus, print_rows, read_rows, write_rows
from haystack_distill.align.job import align
from haystack_distill.align.settings import KaleSettings
from haystack_distill.data.index import IndexView, read_index
from haystack_distill.evaluation.comparison import System, run_of, student_system, teacher_system
from haystack_distill.evaluation.quality import Quality, measure, share
from haystack_distill.students.bi_encoder import BiEncoder
from haystack_distill.students.mapped import ridge_maps, set_map, with_map

WORK = Path("benchmark_output/new_encoder")
PENALTY = 0.03
"""Of the map between documents, for which there is nothing to select on; of the four that ours tries."""


def main(
    data: Annotated[Path, typer.Option(help="A BEIR folder with a test split.")],
    new: Annotated[str, typer.Option(help="The encoder that is to search the index.")],
    old: Annotated[str | None, typer.Option(help="The encoder of the index; default: the packaged MiniLM.")] = None,
    json: Annotated[Path | None, typer.Option(help="Write the rows to this file; rows in it are kept.")] = None,
    quick: Annotated[bool, typer.Option(help="Two hundred sentences alone.")] = False,
) -> None:
    """Print the table."""
    rows, about = read_rows(json), {"data": data.name, "old": _name(old or minilm()), "new": _name(new)}
    if not any(about.items() <= row.items() for row in rows):
        rows += [about | row for row in rows_of(data, old or minilm(), new, 200 if quick else KaleSettings.max_texts)]
        write_rows(json, rows)
    columns = [("data", "data", ""), ("index by", "old", ""), ("queries by", "new", ""), ("way", "method", "")]
    columns += [("nDCG@10", "ndcg@10", ".1f"), ("low", "ci_low", ".1f"), ("high", "ci_high", ".1f")]
    columns += [("% of re-embedding", "share_of_reembedding", ".1f"), ("seconds", "seconds", ".0f")]
    print_rows(rows, columns, "A new encoder on an old index")


def rows_of(data: Path, old: str, new: str, max_texts: int) -> list[dict[str, Any]]:
    """Every way, on one corpus."""
    shutil.rmtree(WORK, ignore_errors=True)  # what a stopped run left
    teacher = load_teacher(old)
    # Neither keeps what it read, so that its time counts.
    reader, encoder = (BiEncoder.load(name, device="cpu", local_files_only=True) for name in (old, new))
    corpus, index = open_corpus(data, teacher)
    started = time.perf_counter()
    vectors = encoder.encode_documents(index.texts, progress=True)
    reembedding = time.perf_counter() - started
    rows = list(zip(index.ids, index.texts, vectors, strict=True))
    own = read_index([rows], WORK / "own-index", "cosine")
    ways = {"old encoder": (teacher_system(teacher), index, 0.0)}
    for weight in (0.0, KaleSettings.passage_weight):
        settings = KaleSettings(student=new, passage_weight=weight, max_texts=max_texts)
        ways[f"map of queries, passage weight {weight:g}"] = mapped(index, reader, encoder, settings, corpus)
    started = time.perf_counter()
    student = with_map(encoder, teacher)
    set_map(student, *ridge_maps(vectors, index.vectors, [PENALTY])[PENALTY])
    seconds = reembedding + time.perf_counter() - started
    ways["map of documents"] = (student_system("documents", student), index, seconds)
    ways["re-embedding"] = (teacher_system(encoder), own, reembedding)
    qrels = corpus.qrels["test"]
    found = {name: measure(run_of(way, view, corpus.queries, qrels), qrels) for name, (way, view, _) in ways.items()}
    shutil.rmtree(WORK)
    return [_row(name, quality, found["re-embedding"], ways[name][2]) for name, quality in found.items()]


def mapped(
    index: IndexView, reader: BiEncoder, encoder: BiEncoder, settings: KaleSettings, corpus: Any
) -> tuple[System, IndexView, float]:
    """Fit a map of queries on the index alone."""
    work = WORK / f"weight-{settings.passage_weight:g}"
    started = time.perf_counter()
    aligned = align(index, reader, settings, work, test=corpus.texts_of("test"), another=encoder)
    return student_system("mapped", aligned.student), index, time.perf_counter() - started


def _row(method: str, quality: Quality, reference: Quality, seconds: float) -> dict[str, Any]:
    kept = share(quality, reference)
    value = quality.summary()["ndcg@10"]
    return {
        "method": method,
        "ndcg@10": 100 * value["value"],
        "ci_low": 100 * value["low"],
        "ci_high": 100 * value["high"],
        "share_of_reembedding": 100 * (kept["value"] or 0),
        "share_low": kept["low"],
        "share_high": kept["high"],
        "seconds": seconds,
    }


def _name(model: str) -> str:
    return "all-MiniLM-L6-v2" if model == minilm() else Path(model).name


if __name__ == "__main__":
    typer.run(main)
