"""
Every system that a team would compare, on every corpus: one row a system.

    pip install 'haystack-distill[bench]'
    python -m benchmarks.retrieval [--data BEIR_FOLDER ...] [--corpus NAME ...] [--systems PATTERN ...] [--json FILE]
    python -m benchmarks.retrieval --latency ...

Systems: BM25; the encoder that made the index, and the same trained but uncut; plain cuts; students; KALE as published
and on our text (`benchmarks.retrieval_systems`); a reader that orders the encoder's first 16, where one is given; and
BM25 joined with each of them (`benchmarks.joining`): `+rrf` and `+dbsf` as Haystack's `DocumentJoiner` does it with 100
candidates a side, `+convex` with one weight that is fitted on dev, and `+oracle` with the best weight on test, which
nobody has. A corpus without dev has no `+convex`; one without train has no rows of train queries.

Search is exact. No test question is trained or selected on: train and dev lose what test asks. `p` is a paired
randomisation test against the encoder; `share_of_teacher` is the share of the encoder's nDCG@10 with the 95 % interval
of the paired bootstrap; `share_of_hybrid` that of the encoder joined with BM25 by `+rrf`. Rows and students are kept by
what they depend on, so that a row is made once and a killed run goes on. `--latency` times rows that are there.
"""

from fnmatch import fnmatch
from pathlib import Path
from typing import Annotated, Any

import typer

from benchmarks.common import load_teacher, minilm, print_rows, write_rows
from benchmarks.labels import NamedReader
from benchmarks.retrieval_latency import add_latencies
from benchmarks.retrieval_rows import Rows, key_of, row_of
from benchmarks.retrieval_systems import Bench, systems_of
from demo.questions import write_questions

SHARED = Path(__file__).parents[2] / "shared" / "data"
CORPORA = {
    "feedbackqa": "feedbackqa",
    "stackfaq_answers": "stackfaq_answers",
    "demo": None,
    "gov_rules": "gov_rules",
    "new_wiki": "squadshifts/new_wiki",
    "amazon": "squadshifts/amazon",
    "scifact": "scifact",
}
"""Name -> folder beside this checkout; None is Python's documentation with the demo's questions."""

COLUMNS = (
    ("system", "system", ""),
    ("trained on", "side", ""),
    ("nDCG@10", "ndcg@10", ".3f"),
    ("95 %", "ci", ""),
    ("recall@10", "recall@10", ".3f"),
    ("p", "p", ".3f"),
    ("of encoder", "share_of_teacher", ".1%"),
    ("95 %", "share", ""),
    ("of hybrid", "share_of_hybrid", ".1%"),
    ("ms", "ms", ".2f"),
    ("train s", "training_seconds", ".0f"),
    ("weight", "weight", ".2f"),
    ("note", "note", ""),
)


def main(
    data: Annotated[list[Path] | None, typer.Option(help="BEIR folders; default: all of --corpus.")] = None,
    corpus: Annotated[list[str] | None, typer.Option(help=f"Of {', '.join(CORPORA)}; default: all.")] = None,
    systems: Annotated[
        list[str] | None, typer.Option(help="Only these rows, such as 'layers-2*' or 'encoder+convex'; */queries too.")
    ] = None,
    json: Annotated[Path | None, typer.Option(help="Write the rows to this file.")] = None,
    model: Annotated[str | None, typer.Option(help="The encoder, a sentence-transformers folder.")] = None,
    reader: Annotated[str | None, typer.Option(help="Folder, hub name or GGUF file of a reader that re-ranks.")] = None,
    dtype: Annotated[str | None, typer.Option(help="Of the reader: float32 or bfloat16.")] = None,
    cache: Annotated[Path, typer.Option(help="Where rows and students are kept.")] = Path("benchmark_output/retrieval"),
    keep_students: Annotated[
        bool, typer.Option("--keep-students", help="Take students that other sources of this package trained, too.")
    ] = False,
    latency: Annotated[bool, typer.Option("--latency", help="Time the rows that are there: one idle machine.")] = False,
    quick: Annotated[
        bool, typer.Option("--quick", help="Few queries, one pass: shows that it runs, not how good it is.")
    ] = False,
) -> None:
    """Print a table for each corpus."""
    encoder, rows = load_teacher(model or minilm()), Rows(cache / "rows.jsonl")
    asked_reader = NamedReader(reader, dtype) if reader else None
    shown: list[dict[str, Any]] = []
    for folder in _folders(data, corpus, cache):
        bench = Bench(folder, encoder, cache, quick=quick, reader=asked_reader, keep_students=keep_students)
        made = []
        for name, side, way in systems_of(bench):
            if not _chosen(name, side, way, systems):
                continue
            key = key_of(bench, name, side, way)
            if not latency and key not in rows:
                rows.add(key, row_of(bench, name, side, way))
                print(f"{bench.name} {rows[key]['system']} {side} {rows[key]['ndcg@10']:.4f}", flush=True)
            made += [rows[key]] if key in rows else []
        if latency:
            made = add_latencies(bench, made, rows)
        shown += made
        title = f"{bench.name}: {len(bench.test)} questions, {len(bench.index)} passages{_limits(bench)}"
        print_rows([_with_intervals(row) for row in made], COLUMNS, title)
        if json:
            write_rows(json, shown)


def _folders(data: list[Path] | None, corpus: list[str] | None, cache: Path) -> list[Path]:
    """The BEIR folders to read; the demo's is written, which takes a second."""
    found = list(data or [])
    for name in corpus or ([] if data else list(CORPORA)):
        if name not in CORPORA:
            msg = f"There is no corpus {name!r}: choose of {', '.join(CORPORA)}, or name a BEIR folder with --data."
            raise typer.BadParameter(msg)
        place = CORPORA[name]
        folder = SHARED / place if place else cache / "demo"
        if place is None:
            write_questions(folder)
        if not folder.is_dir():
            msg = f"{folder} is missing: name BEIR folders with --data, or put the data sets beside this checkout."
            raise typer.BadParameter(msg)
        found.append(folder)
    return found


def _chosen(name: str, side: str, way: str | None, patterns: list[str] | None) -> bool:
    """Whether a row is asked for: by its system, or by system and side."""
    system = f"{name}+{way}" if way else name
    return patterns is None or any(fnmatch(system, one) or fnmatch(f"{system}/{side}", one) for one in patterns)


def _with_intervals(row: dict[str, Any]) -> dict[str, Any]:
    """A row with its intervals as they are printed."""
    low, high = row["share_low"], row["share_high"]
    share = None if low is None or high is None else f"{100 * low:.1f}–{100 * high:.1f}"
    return row | {"ci": f"{row['ci_low']:.3f}–{row['ci_high']:.3f}", "share": share}


def _limits(bench: Bench) -> str:
    """What the corpus has no rows of."""
    limits = [] if bench.dev else ["no dev: no weight is fitted"]
    limits += [] if bench.given.train else ["no train queries"]
    return f" ({'; '.join(limits)})" if limits else ""


if __name__ == "__main__":
    typer.run(main)
