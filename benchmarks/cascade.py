"""
Encoders in order of cost: what a query costs that the cheap one answers, and what is kept of the teacher's quality.

    python -m benchmarks.cascade --data BEIR_FOLDER [--json FILE] [--quick] [--model ENCODER] [--max-share 0.1]

Students of no layers (trained, and solved for by ridge regression), of one and of two are aligned with the train
queries and the index. A cascade is calibrated on the dev queries, of which no judgments are used, and no test query is
looked at. Rows: the test queries; with `new_wiki`, 80 of them as asked and paraphrased by hand, the test queries of
`amazon` against its own index, and, by other students, which are aligned with every other document alone, test queries
about those documents and about the ones that came later (`benchmarks.kale_limits`).

`share_sent_up` is the share of the queries that the first encoder did not answer, `share_to_teacher` of those that came
to the teacher. `ms` is from text to documents, one query at a time on one thread with exact search by numpy: a table
runs on numpy, all others on torch. Of a cascade it is the mean over the queries of what each of its encoders took.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from fnmatch import fnmatch
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
import typer
from sentence_transformers import SentenceTransformer

from benchmarks.common import load_teacher, minilm, open_corpus, print_rows, write_rows
from benchmarks.kale_limits import json_lines
from benchmarks.retrieval_systems import Bench, read_facts
from haystack_distill.align.settings import KaleSettings
from haystack_distill.data.beir import Qrels
from haystack_distill.data.index import IndexView
from haystack_distill.evaluation.calibration import FEWEST, Target, calibrate
from haystack_distill.evaluation.comparison import System, run_of, student_system, teacher_system
from haystack_distill.evaluation.held_out import Queries, split_index_text
from haystack_distill.evaluation.quality import Run, latency_ms, measure, share
from haystack_distill.evaluation.sureness import sureness
from haystack_distill.serving.opening import open_encoder

STUDENTS = {
    "layers-2": KaleSettings(layers=2),
    "layers-1": KaleSettings(layers=1),
    "layers-0": KaleSettings(layers=0),
    "layers-0-ridge": KaleSettings(layers=0, fit="ridge"),
}
CASCADES = {
    "cascade-0-teacher": ("layers-0", "teacher"),
    "cascade-0-2-teacher": ("layers-0", "layers-2", "teacher"),
    "cascade-2-teacher": ("layers-2", "teacher"),
    "cascade-0-ridge-teacher": ("layers-0-ridge", "teacher"),
}
TIMED = 60
COLUMNS = (
    ("data", "data", ""),
    ("queries", "queries", ""),
    ("system", "system", ""),
    ("nDCG@10", "ndcg@10", ".3f"),
    ("of teacher", "share_of_teacher", ".1%"),
    ("low", "ci_low", ".1%"),
    ("high", "ci_high", ".1%"),
    ("sent up", "share_sent_up", ".1%"),
    ("to teacher", "share_to_teacher", ".1%"),
    ("ms", "ms", ".3f"),
    ("times as fast", "speedup", ".1f"),
    ("calibrated on", "calibrated_on", ""),
)


@dataclass(frozen=True)
class Asked:
    """Judged queries, and the index that they are asked of."""

    name: str
    index: IndexView
    queries: dict[str, str]
    qrels: Qrels


def main(
    data: Annotated[Path, typer.Option(help="A BEIR folder with a test split.")],
    json: Annotated[Path | None, typer.Option(help="Write the rows to this file.")] = None,
    quick: Annotated[bool, typer.Option(help="Few queries, one pass: shows that it runs, not how good it is.")] = False,
    model: Annotated[str | None, typer.Option(help="The encoder, a sentence-transformers folder.")] = None,
    systems: Annotated[list[str] | None, typer.Option(help="Only these rows, such as 'cascade-0*'.")] = None,
    max_share: Annotated[float, typer.Option(help="How many queries an encoder may send on.")] = 0.1,
    later: Annotated[bool, typer.Option(help="Whether students of half an index are made, too.")] = True,
    cache: Annotated[Path, typer.Option(help="Where students are kept.")] = Path("benchmark_output/cascade"),
) -> None:
    """Print the table."""
    torch.set_num_threads(1)
    encoder = load_teacher(model or minilm())
    bench = Bench(data, encoder, cache, quick=quick, keep_students=True)
    chosen = [name for name in [*STUDENTS, *CASCADES] if any(fnmatch(name, one) for one in systems or ["*"])]
    rows: list[dict[str, Any]] = []

    def add(bench: Bench, asked: list[Asked]) -> None:
        parts = Parts(bench, chosen, Target(max_share=max_share))
        for one in asked:
            rows.extend(parts.rows(one))
            write_rows(json, rows)

    asked = [Asked("test", bench.index, bench.queries, bench.test), *_harder(bench)]
    add(bench, asked)
    if later and len(asked) > 1:
        add(*_half(bench))
    print_rows(rows, COLUMNS, f"Teacher: {model or 'all-MiniLM-L6-v2'}")


class Parts:
    """
    The encoders of one index, what each costs, and the thresholds of their cascades.

    :param chosen: The systems that get rows.
    """

    def __init__(self, bench: Bench, chosen: list[str], target: Target) -> None:
        self.bench, self.chosen = bench, chosen
        needed = {*chosen, *(part for name in chosen for part in CASCADES.get(name, ()))}
        folders = {name: _student(bench, name) for name in STUDENTS if name in needed}
        self.systems = {"teacher": teacher_system(bench.encoder)}
        self.systems |= {name: _loaded(name, folder) for name, folder in folders.items()}
        self.ms = _milliseconds(bench, self.systems, folders)
        dev, what = bench.given.dev, "dev queries"
        if len(dev) < FEWEST:
            held_out = split_index_text(bench.index, 0)
            dev, what = {**held_out.dev, **held_out.proof}, "held-out sentences"
        qrels: Qrels = {query_id: {} for query_id in dev}
        runs = {name: run_of(system, bench.index, dev, qrels) for name, system in self.systems.items()}
        self.thresholds = {
            name: calibrate([runs[part] for part in CASCADES[name]], target).values
            for name in chosen
            if name in CASCADES
        }
        self.calibrated_on = f"{len(dev)} {what}, share {target.max_share}"

    def rows(self, asked: Asked) -> list[dict[str, Any]]:
        """A row for each system."""
        runs = {name: run_of(one, asked.index, asked.queries, asked.qrels) for name, one in self.systems.items()}
        teacher = measure(runs["teacher"], asked.qrels)
        found = []
        for name in ["teacher", *self.chosen]:
            steps = CASCADES.get(name, (name,))
            run, answered = _answers([runs[step] for step in steps], self.thresholds.get(name, []))
            quality = measure(run, asked.qrels)
            kept = share(quality, teacher)
            costs = np.cumsum([self.ms[step] for step in steps])
            ms = float(costs[answered].mean())
            found.append(
                {
                    "data": self.bench.name,
                    "queries": asked.name,
                    "system": name,
                    "ndcg@10": quality.mean(),
                    "share_of_teacher": kept["value"],
                    "ci_low": kept["low"],
                    "ci_high": kept["high"],
                    "share_sent_up": float((answered > 0).mean()) if len(steps) > 1 else None,
                    "share_to_teacher": float((answered == len(steps) - 1).mean()) if len(steps) > 1 else None,
                    "ms": ms,
                    "speedup": self.ms["teacher"] / ms,
                    "calibrated_on": self.calibrated_on if len(steps) > 1 else None,
                }
            )
            row = found[-1]
            print(
                f"{row['data']} {row['queries']} {name} {row['ndcg@10']:.4f} {row['share_of_teacher']:.3f}", flush=True
            )
        return found


def _answers(runs: list[Run], thresholds: list[float]) -> tuple[Run, np.ndarray]:
    """What a cascade finds, and the number of the encoder that answered each query."""
    run, answered = {}, []
    for query_id in runs[0]:
        step = 0
        while step < len(thresholds) and sureness(runs[step][query_id].values()) <= thresholds[step]:
            step += 1
        run[query_id] = runs[step][query_id]
        answered.append(step)
    return run, np.array(answered)


def _student(bench: Bench, name: str) -> Path:
    return bench.student(name, "queries" if bench.given.train else "index", STUDENTS[name]) / "student"


def _loaded(name: str, folder: Path) -> System:
    model = SentenceTransformer(str(folder), device="cpu", local_files_only=True)
    return student_system(name, model, read_facts(folder.parent)["seconds"])


def _milliseconds(bench: Bench, systems: dict[str, System], folders: dict[str, Path]) -> dict[str, float]:
    """What a query costs with each encoder, search included, all in turn."""
    vectors = np.ascontiguousarray(bench.index.ranking_vectors)
    one_by_one: dict[str, Callable[[str], np.ndarray]] = {}
    for name, system in systems.items():
        if name in folders and system.layers == 0:
            one_by_one[name] = open_encoder(folders[name]).encode
        else:
            one_by_one[name] = lambda text, system=system: system.encode([text])[0]

    def asked(encode: Callable[[str], np.ndarray]) -> Callable[[str], np.ndarray]:
        return lambda text: np.argpartition(-(vectors @ encode(text)), min(10, len(vectors) - 1))[:10]

    texts = [bench.queries[query_id] for query_id in bench.test]
    return latency_ms(
        {name: asked(encode) for name, encode in one_by_one.items()}, texts[:: max(1, len(texts) // TIMED)]
    )


def _harder(bench: Bench) -> list[Asked]:
    """What `kale_limits` asks beside the test queries, where the data has it."""
    others = {line["_id"]: line["text"] for line in json_lines("paraphrases.jsonl")}
    if not set(others) <= set(bench.corpus.qrels["test"]):
        return []
    qrels = {query_id: bench.corpus.qrels["test"][query_id] for query_id in others}
    found = [
        Asked("80 as asked", bench.index, bench.queries, qrels),
        Asked("paraphrased", bench.index, others, qrels),
    ]
    neighbour = bench.folder.parent / "amazon"
    if neighbour.is_dir():
        away, index = open_corpus(neighbour, bench.encoder)
        found.append(Asked("another corpus", index, away.queries, away.qrels["test"]))
    return found


def _half(bench: Bench) -> tuple[Bench, list[Asked]]:
    """The same with every other document alone: queries about those, and about the ones that came later."""
    index = bench.index
    half = Bench(bench.folder, bench.encoder, bench.cache, quick=bench.quick, keep_students=True)
    half.index = replace(index, ids=index.ids[::2], texts=index.texts[::2], vectors=index.vectors[::2])
    half.identity = {**half.identity, "documents": "every other"}
    known = set(half.index.ids)
    judged = {key: documents for key, documents in bench.given.dev_qrels.items() if set(documents) <= known}
    half.given = Queries([], {key: bench.given.dev[key] for key in judged}, judged)
    about = {
        "half: about it": {key: judged for key, judged in bench.test.items() if set(judged) <= known},
        "half: later documents": {key: judged for key, judged in bench.test.items() if not set(judged) & known},
    }
    return half, [Asked(name, index, bench.queries, qrels) for name, qrels in about.items()]


if __name__ == "__main__":
    typer.run(main)
