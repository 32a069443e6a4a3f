"""
An index that has grown: what a student loses on the new documents, and what an update brings back, in which time.

    python -m benchmarks.update --data BEIR_FOLDER [--model ENCODER] [--new SHARE ...] [--json FILE] [--quick]

The last documents of the corpus are the new ones. A student is aligned with the text of the others, and then updated
(`KaleAligner(update=...)`), or aligned anew with all of it. Test queries, of which nothing is learnt: those whose
documents are all new, and all others; both are searched for among all documents. `seconds` are those of alignment or
update on this machine, reading of texts by the teacher included.
"""

import shutil
import time
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import typer

from benchmarks.common import load_teacher, minilm, open_corpus, print_rows, read_rows, write_rows
from haystack_distill.align.job import Aligned, align
from haystack_distill.align.settings import KaleSettings
from haystack_distill.align.update import Earlier, learnt
from haystack_distill.data.index import IndexView
from haystack_distill.evaluation.comparison import System, run_of, student_system, teacher_system
from haystack_distill.evaluation.held_out import split_index_text
from haystack_distill.evaluation.quality import Quality, compare, measure, share
from haystack_distill.files.runs import fingerprint
from haystack_distill.students.bi_encoder import BiEncoder

WORK = Path("benchmark_output/update")
STUDENTS = {
    "layers-0-ridge": KaleSettings(layers=0, fit="ridge"),
    "layers-0": KaleSettings(layers=0),
    "layers-2": KaleSettings(layers=2),
}
COLUMNS = [
    ("data", "data", ""),
    ("new", "new", ".0%"),
    ("student", "student", ""),
    ("system", "system", ""),
    ("queries about", "about", ""),
    ("of them", "queries", "d"),
    ("nDCG@10", "ndcg@10", ".3f"),
    ("of teacher", "share_of_teacher", ".1%"),
    ("low", "share_low", ".1%"),
    ("high", "share_high", ".1%"),
    ("p", "p_vs_anew", ".3f"),
    ("seconds", "seconds", ".0f"),
]


def main(
    data: Annotated[Path, typer.Option(help="A BEIR folder with a test split.")],
    model: Annotated[str | None, typer.Option(help="The encoder of the index; default: the packaged MiniLM.")] = None,
    new: Annotated[list[float] | None, typer.Option(help="Shares of the documents that are new.")] = None,
    student: Annotated[list[str] | None, typer.Option(help=f"Of {', '.join(STUDENTS)}; default: all.")] = None,
    json: Annotated[Path | None, typer.Option(help="Write the rows to this file; rows in it are kept.")] = None,
    quick: Annotated[bool, typer.Option(help="A table, few texts: shows that it runs.")] = False,
) -> None:
    """Print the table."""
    rows = read_rows(json)
    for part in new or [0.1, 0.5]:
        for name in student or (["layers-0-ridge"] if quick else [*STUDENTS]):
            about = {"data": data.name, "new": part, "student": name}
            if not any(about.items() <= row.items() for row in rows):
                settings = replace(STUDENTS[name], max_texts=200) if quick else STUDENTS[name]
                rows += [about | row for row in rows_of(data, model or minilm(), part, settings)]
                write_rows(json, rows)
    print_rows(rows, COLUMNS, "A student of an index that has grown")


def rows_of(data: Path, model: str, part: float, settings: KaleSettings) -> list[dict[str, Any]]:
    """Every system, on one corpus."""
    shutil.rmtree(WORK, ignore_errors=True)  # what a stopped run left
    cached = load_teacher(model)
    corpus, index = open_corpus(data, cached)
    teacher = BiEncoder.load(model, device="cpu", local_files_only=True)  # it keeps nothing, so that its time counts
    test, count = corpus.texts_of("test"), round(part * len(index))
    old = first_documents(index, len(index) - count)
    before, seconds = timed(old, teacher, settings, test)
    marks = learnt(old, split_index_text(old, settings.training.seed).proof.values())
    earlier = Earlier("before", before.student, **marks, dev=before.dev, made_of="", kept_layers=before.kept_layers)
    update = KaleSettings(update="before", max_texts=settings.max_texts)
    updated, spent = timed(index, teacher, update, test, earlier)
    anew, whole = timed(index, teacher, settings, test)
    systems = {
        "teacher": (teacher_system(cached), None),
        "before": (student_system("before", before.student), seconds),
        "updated": (student_system("updated", updated.student), spent),
        "aligned anew": (student_system("anew", anew.student), whole),
    }
    fresh = set(index.ids[len(old) :])
    qrels = corpus.qrels["test"]
    about = {
        "new documents": {one: judged for one, judged in qrels.items() if fresh.issuperset(judged)},
        "the others": {one: judged for one, judged in qrels.items() if not fresh.issuperset(judged)},
    }
    shutil.rmtree(WORK)
    found = {name: run_of(system, index, corpus.queries, qrels) for name, (system, _) in systems.items()}
    return [
        row
        for what, judged in about.items()
        if judged
        for row in _rows(what, {name: measure(run, judged) for name, run in found.items()}, systems)
    ]


def first_documents(index: IndexView, count: int) -> IndexView:
    """The index as it was when it had so many documents."""
    mark = fingerprint([index.fingerprint, count])
    ids, texts, vectors = index.ids[:count], index.texts[:count], index.vectors[:count]
    return replace(index, ids=ids, texts=texts, vectors=vectors, fingerprint=mark, sampled_from=count)


def timed(
    index: IndexView, teacher: BiEncoder, settings: KaleSettings, test: list[str], earlier: Earlier | None = None
) -> tuple[Aligned, float]:
    """Align with the text of an index, and how long it took."""
    work = WORK / fingerprint([settings, index.fingerprint], 16)
    started = time.perf_counter()
    aligned = align(index, teacher, settings, work, test=test, earlier=earlier)
    return aligned, time.perf_counter() - started


def _rows(
    about: str, found: dict[str, Quality], systems: dict[str, tuple[System, float | None]]
) -> list[dict[str, Any]]:
    rows = []
    for name, quality in found.items():
        kept = share(quality, found["teacher"])
        rows.append(
            {
                "system": name,
                "about": about,
                "queries": len(quality.query_ids),
                "ndcg@10": quality.mean(),
                "share_of_teacher": kept["value"],
                "share_low": kept["low"],
                "share_high": kept["high"],
                "p_vs_anew": compare(quality, found["aligned anew"])["p"] if name in {"before", "updated"} else None,
                "seconds": systems[name][1],
            }
        )
    return rows


if __name__ == "__main__":
    typer.run(main)
