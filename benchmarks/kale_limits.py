"""
Where students break: the same students on queries that are harder for them than for their teacher.

    python -m benchmarks.kale_limits --data FOLDER [--teacher MODEL] [--passage-weight 0] [--json FILE] [--quick]

Students of 0, 1 and 2 layers are aligned with new_wiki (train queries and index). Rows: its test queries; those with a
word that neither the index nor the train queries have; 80 of them as asked, and paraphrased by hand; all in shuffled
order (a student that does not mind never used the order); amazon's test queries against amazon's index, by the same
students; and hand-written pairs of passages that differ in word order or by a negation (how often the right one wins).
The last two rows are about other students, aligned with every other document alone: test queries about those documents
and about the ones that "came later", both searched for among all.
"""

import gc
import json as json_format
import random
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer

from benchmarks.common import CachedTeacher, load_teacher, minilm, open_corpus, print_rows, queries_to_align, write_rows
from haystack_distill.align.job import align
from haystack_distill.align.settings import KaleSettings
from haystack_distill.align.training import TrainingSettings
from haystack_distill.data.beir import BeirFolder, Qrels
from haystack_distill.data.general_text import read_general_text
from haystack_distill.data.index import IndexView
from haystack_distill.evaluation.comparison import System, student_system, teacher_system
from haystack_distill.evaluation.held_out import Queries
from haystack_distill.evaluation.quality import measure, search

HOME, AWAY = "squadshifts/new_wiki", "squadshifts/amazon"
HERE = Path(__file__).parent
WORK = Path("benchmark_output/kale_limits")


def main(
    data: Annotated[Path, typer.Option(help="The folder that holds the BEIR folders.")],
    json: Annotated[Path | None, typer.Option(help="Write the rows to this file.")] = None,
    teacher: Annotated[
        str | None, typer.Option(help="A sentence-transformers folder; default: the packaged MiniLM.")
    ] = None,
    quick: Annotated[bool, typer.Option(help="One epoch and the token table alone.")] = False,
    passage_weight: Annotated[
        float, typer.Option(help="How far sentences are moved toward their passages.")
    ] = KaleSettings.passage_weight,
    text: Annotated[list[str] | None, typer.Option(help="General text to align on as well; can be repeated.")] = None,
    layers: Annotated[list[int] | None, typer.Option(help="Only students of so many layers.")] = None,
) -> None:
    """Print the table."""
    encoder = load_teacher(teacher or minilm())
    general = Queries(text=read_general_text(text or []))
    home, index = open_corpus(data / HOME, encoder)
    training = TrainingSettings(epochs=1 if quick else None)
    wanted = [
        KaleSettings(layers=layers, passage_weight=passage_weight, training=training)
        for layers in (layers or ([0] if quick else [0, 1, 2]))
    ]
    given, asked = queries_to_align(data / HOME, home), home.texts_of("test")
    given = replace(given, text=general.text)
    systems = [teacher_system(encoder), *students(index, encoder, wanted, given, asked)]
    queries, qrels = home.queries, home.qrels["test"]
    rows = [retrieval("test queries", systems, index, queries, qrels)]
    rare = {query_id: qrels[query_id] for query_id in with_unknown_words(encoder, home)}
    rows.append(retrieval("with a word the texts lack", systems, index, queries, rare))
    others = {line["_id"]: line["text"] for line in json_lines("paraphrases.jsonl")}
    asked = {query_id: qrels[query_id] for query_id in others}
    rows.append(retrieval("80 of them as asked", systems, index, queries, asked))
    rows.append(retrieval("the same 80, paraphrased by hand", systems, index, others, asked))
    rows.append(retrieval("words shuffled", systems, index, shuffled(queries), qrels))
    away, away_index = open_corpus(data / AWAY, encoder)
    rows.append(retrieval("another corpus", systems, away_index, away.queries, away.qrels["test"]))
    pairs = json_lines("minimal_pairs.jsonl")
    rows += [
        preference(kind, systems, encoder, [one for one in pairs if one["kind"] == kind])
        for kind in ("order", "negation")
    ]
    rows += later_documents(index, encoder, wanted, general, queries, qrels)
    write_rows(json, rows)
    columns = [("queries", "what", ""), ("of them", "count", "d"), ("teacher", "teacher", ".3f")]
    columns += [(f"{system.name}, % of teacher", system.name, ".1f") for system in systems[1:]]
    print_rows(rows, columns, "nDCG@10 (pairs: share of right choices), students aligned with new_wiki")


def students(
    index: IndexView, encoder: CachedTeacher, wanted: list[KaleSettings], given: Queries, test: list[str]
) -> list[System]:
    """Align a student for each of the settings."""
    systems = []
    for settings in wanted:
        shutil.rmtree(WORK, ignore_errors=True)
        gc.collect()  # trainers are full of cycles, and one with a deep teacher holds a gigabyte
        systems.append(
            student_system(f"{settings.layers} layers", align(index, encoder, settings, WORK, given, test=test).student)
        )
    return systems


def later_documents(
    index: IndexView,
    encoder: CachedTeacher,
    wanted: list[KaleSettings],
    given: Queries,
    queries: dict[str, str],
    qrels: Qrels,
) -> list[dict[str, Any]]:
    """What students aligned with every other document make of queries about those and about the others."""
    half = replace(index, ids=index.ids[::2], texts=index.texts[::2], vectors=index.vectors[::2])
    systems = [
        teacher_system(encoder),
        *students(half, encoder, wanted, given, [queries[query_id] for query_id in qrels]),
    ]
    known = set(half.ids)
    about = {
        "half the index aligned with: about it": {key: judged for key, judged in qrels.items() if set(judged) <= known},
        "about documents that came later": {key: judged for key, judged in qrels.items() if not set(judged) & known},
    }
    return [retrieval(what, systems, index, queries, part) for what, part in about.items()]


def json_lines(name: str) -> list[dict[str, str]]:
    """What was written by hand for this benchmark."""
    return [json_format.loads(line) for line in (HERE / name).read_text(encoding="utf-8").splitlines()]


def retrieval(
    what: str, systems: list[System], index: IndexView, queries: dict[str, str], qrels: Qrels
) -> dict[str, Any]:
    """nDCG@10 of the teacher, and each student's share of it."""
    ids = list(qrels)
    texts = [queries[query_id] for query_id in ids]
    values = [measure(search(index, ids, system.encode(texts)), qrels).mean() for system in systems]
    return _row(what, len(ids), systems, values)


def preference(what: str, systems: list[System], encoder: CachedTeacher, pairs: list[dict[str, str]]) -> dict[str, Any]:
    """How often the right passage of a pair is nearer to the query; ties count half."""
    right, wrong = (encoder.encode_documents([pair[side] for pair in pairs]) for side in ("right", "wrong"))
    values = []
    for system in systems:
        query = system.encode([pair["query"] for pair in pairs])
        margin = np.sum(query * right, axis=1) - np.sum(query * wrong, axis=1)
        values.append(float(np.mean(np.where(np.abs(margin) < 1e-6, 0.5, margin > 0))))
    return _row(f"pairs: {what}", len(pairs), systems, values)


def with_unknown_words(encoder: CachedTeacher, data: BeirFolder) -> list[str]:
    """Test queries with a token that is in no document and no train query."""
    known: set[int] = set()
    for text in [*data.documents.values(), *data.texts_of("train")]:
        known.update(encoder.model.tokenizer(text)["input_ids"])
    ids = data.qrels["test"]
    return [
        query_id for query_id in ids if not set(encoder.model.tokenizer(data.queries[query_id])["input_ids"]) <= known
    ]


def shuffled(queries: dict[str, str]) -> dict[str, str]:
    """The same words in another order."""
    generator = random.Random(0)
    return {
        query_id: " ".join(generator.sample(words := text.split(), len(words))) for query_id, text in queries.items()
    }


def _row(what: str, count: int, systems: list[System], values: list[float]) -> dict[str, Any]:
    shares = {
        system.name: 100 * value / values[0] if values[0] else None
        for system, value in zip(systems[1:], values[1:], strict=True)
    }
    return {"what": what, "count": count, "teacher": values[0], **shares}


if __name__ == "__main__":
    typer.run(main)
