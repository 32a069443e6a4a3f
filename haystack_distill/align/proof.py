# SPDX-FileCopyrightText: 2026-present haystack-distill contributors
#
# SPDX-License-Identifier: Apache-2.0

"""A student with its proof: aligned, measured on held-out queries, and written with its card, metrics and report."""

import json
import random
import shutil
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from sentence_transformers import SentenceTransformer

from haystack_distill.align.job import Aligned, KaleSettings, Queries, align
from haystack_distill.data.beir import Qrels, read_beir, read_queries
from haystack_distill.data.index import IndexView
from haystack_distill.data.own_passages import judged_by_place
from haystack_distill.data.sentences import split_index_text, unseen
from haystack_distill.evaluation.comparison import (
    Measured,
    System,
    measure_all,
    metrics,
    student_system,
    teacher_system,
    wins_and_losses,
)
from haystack_distill.evaluation.dev_set import write_dev_set
from haystack_distill.evaluation.held_out import judged_split
from haystack_distill.evaluation.proof import check_saved
from haystack_distill.evaluation.report import write_report
from haystack_distill.files.folders import published, workspace_for, write_json
from haystack_distill.files.layout import PROVENANCE
from haystack_distill.students.bi_encoder import BiEncoder

HELD_OUT_PART, HELD_OUT_LEAST, HELD_OUT_MOST = 10, 50, 400
"""A tenth of given queries is held out to select on, but no more than so many; too few to tell students apart, none."""


def align_and_prove(
    index: IndexView,
    teacher: BiEncoder,
    teacher_name: str,
    settings: KaleSettings,
    output: Path,
    queries: str | None,
    test: str | None,
    *,
    progress: bool = True,
) -> dict[str, Any]:
    """
    Align a student, measure it beside its teacher and the plain cut, and write it all into a new folder.

    :param index: The index.
    :param teacher: The encoder that made it.
    :param teacher_name: Its folder or hub name, for the card.
    :param settings: What is wanted of the student.
    :param output: The folder to make.
    :param queries: A BEIR folder or a JSONL file of queries, or None for the index alone.
    :param test: A BEIR folder with a test split, or None to be judged on held-out sentences by where they stand.
    :param progress: Whether to show progress bars.
    :returns: The content of `metrics.json`.
    :raises FileNotFoundError: If a path is missing.
    :raises ValueError: See `kale.align`; and if the test folder has no test split for this index.
    """
    workspace = workspace_for(output)
    test_queries, test_qrels, judged_by = _test(test, index, settings.training.seed)
    given = given_queries(queries, settings.training.seed) if queries else Queries()
    given = replace(given, train=unseen(given.train, test_queries.values()))
    aligned = align(index, teacher, settings, workspace, given, progress=progress)
    systems = [
        teacher_system(teacher),
        student_system("cut_only", aligned.cut_only),
        student_system("student", aligned.student, aligned.training.seconds),
    ]
    measured = measure_all(systems, index, test_queries, test_qrels)
    figures = {
        **metrics(measured, settings.training.seed),
        "kept_layers": list(aligned.kept_layers),
        "training_seconds": aligned.training.seconds,
        "judged_by": judged_by,
        "provenance": _provenance(index, teacher, teacher_name, settings, aligned),
    }
    examples = wins_and_losses(measured["student"], measured["teacher"], test_queries, test_qrels, index)
    with published(output) as folder:
        _write(folder, aligned, figures, measured, examples)
    shutil.rmtree(workspace, ignore_errors=True)
    return figures


def given_queries(path: str, seed: int) -> Queries:
    """
    Split given queries into those to train on and those to select on; the test split is never among them.

    Where there is no dev split, a tenth is held out, unless that were fewer than 50: then all are trained on, and
    sentences of the index serve to select.

    :param path: A BEIR folder, or a JSONL file of queries.
    :param seed: Of the choice where there is no dev split.
    :returns: The queries; none to train on that dev or test ask as well.
    :raises FileNotFoundError: If the path is missing.
    :raises ValueError: If the folder has no train split.
    """
    if Path(path).is_dir():
        folder = read_beir(path)
        if "train" not in folder.qrels:
            msg = (
                f"{path} has no qrels/train.tsv, so no queries to align on: leave `queries` out to align on the index "
                "alone."
            )
            raise ValueError(msg)
        dev = folder.qrels.get("dev") or _some(folder.qrels["train"], seed)
        train = [folder.queries[query_id] for query_id in folder.qrels["train"] if query_id not in dev]
        selecting = {query_id: folder.queries[query_id] for query_id in dev}
        return Queries(unseen(train, [*selecting.values(), *folder.texts_of("test")]), selecting, dev)
    queries = read_queries(path)
    held_out: dict[str, str] = _some(queries, seed)
    train = [text for query_id, text in queries.items() if query_id not in held_out]
    return Queries(unseen(train, held_out.values()), held_out)


def _some(everything: dict[str, Any], seed: int) -> dict[str, Any]:
    count = min(HELD_OUT_MOST, len(everything) // HELD_OUT_PART)
    if count < HELD_OUT_LEAST:
        return {}
    chosen = random.Random(seed).sample(sorted(everything), count)  # noqa: S311 - a sample, not a secret
    return {key: everything[key] for key in chosen}


def _test(test: str | None, index: IndexView, seed: int) -> tuple[dict[str, str], Qrels, str]:
    if test is None:
        parts = split_index_text(index, seed)
        qrels = judged_by_place(parts.proof, parts.places, index)
        if len(qrels) < 2:
            msg = (
                f"The {len(index)} documents have {len(parts.places)} sentences, too few to hold some out for the "
                "proof: give `test`, a BEIR folder with a test split."
            )
            raise ValueError(msg)
        return parts.proof, qrels, "held-out sentences of the index, judged by the passages they stand in"
    queries, qrels = judged_split(test, "test", index)
    return queries, qrels, "judged test queries"


def evaluate_students(
    index: IndexView,
    teacher: BiEncoder,
    teacher_name: str,
    students: dict[str, str],
    queries: str,
    split: str,
    output: Path,
    seed: int = 0,
) -> dict[str, Any]:
    """
    Compare saved students with their teacher and write the figures and a report into a new folder.

    :param index: The index.
    :param teacher: The encoder that made it.
    :param teacher_name: Its folder or hub name, for the report.
    :param students: Name -> folder; the report puts the last one first.
    :param queries: A BEIR folder.
    :param split: Which judgments to use.
    :param output: The folder to make.
    :param seed: Of the resampling.
    :returns: The content of `metrics.json`.
    :raises FileNotFoundError: If a folder is missing.
    :raises ValueError: If a student's vectors have other dimensions than the index, or judgments don't fit it.
    """
    texts, qrels = judged_split(queries, split, index)
    teacher.check_belongs_to(index)
    systems = [teacher_system(teacher), *(_saved(name, Path(folder), index) for name, folder in students.items())]
    measured = measure_all(systems, index, texts, qrels)
    figures = metrics(measured, seed)
    facts = {
        "Teacher": teacher_name,
        **{f"Student {name}": _made(Path(folder)) for name, folder in students.items()},
        "Index": f"{len(index)} documents, {index.dim} dimensions, {index.similarity}, "
        f"fingerprint {index.fingerprint[:16]}",
        "Judged by": f"judged {split} queries",
    }
    examples = wins_and_losses(list(measured.values())[-1], measured["teacher"], texts, qrels, index)
    with published(output) as folder:
        write_json(folder / "metrics.json", figures)
        (folder / "report.html").write_text(write_report(measured, figures, examples, facts), encoding="utf-8")
    return figures


def _made(folder: Path) -> str:
    """How a saved student came to be, if its folder tells."""
    file = folder / "metrics.json"
    figures = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}
    if "kept_layers" not in figures.get("provenance", {}):
        return f"{folder}, not made by an alignment"
    facts = facts_of(figures)
    told = "; ".join(f"{label.lower()}: {facts[label]}" for label in ("Layers kept", "Trained on", "Loss", "Training"))
    return f"{folder} ({told})"


def _saved(name: str, folder: Path, index: IndexView) -> System:
    if not (folder / "modules.json").is_file():
        msg = f"The student {name!r} is not at {folder}: there is no sentence-transformers model (modules.json)."
        raise FileNotFoundError(msg)
    student = SentenceTransformer(str(folder), local_files_only=True)
    if student.get_embedding_dimension() != index.dim:
        msg = (
            f"The student {name!r} makes vectors of {student.get_embedding_dimension()} dimensions and the index has "
            f"{index.dim}: it was made for another index."
        )
        raise ValueError(msg)
    proof = folder / "metrics.json"
    seconds = json.loads(proof.read_text(encoding="utf-8")).get("training_seconds") if proof.is_file() else None
    return student_system(name, student, seconds)


def _provenance(
    index: IndexView, teacher: BiEncoder, teacher_name: str, settings: KaleSettings, aligned: Aligned
) -> dict[str, Any]:
    return {
        "teacher": teacher_name,
        "kept_layers": list(aligned.kept_layers),
        "index": {
            "fingerprint": index.fingerprint,
            "documents": len(index),
            "dim": index.dim,
            "similarity": index.similarity,
            "normalized": index.normalized,
            "without_vector": index.without_vector,
            "sampled_from": index.sampled_from,
        },
        "query_prefix": teacher.query_prefix,
        "trained_on": aligned.texts,
        "layer_search": aligned.searched,
        "settings": json.loads(json.dumps(asdict(settings))),
        "history": aligned.training.history,
        "stays_untrained": aligned.stays_untrained,
    }


def _write(
    folder: Path,
    aligned: Aligned,
    figures: dict[str, Any],
    measured: dict[str, Measured],
    examples: dict[str, list[dict[str, Any]]],
) -> None:
    student = aligned.student
    student.save(str(folder), create_model_card=False)
    check_saved(folder, student, [figures["provenance"]["teacher"], "What does the loaded model make of this query?"])
    write_json(folder / PROVENANCE, figures["provenance"])
    write_json(folder / "metrics.json", figures)
    write_dev_set(folder, aligned.dev)
    facts = facts_of(figures)
    report = write_report(measured, figures, examples, facts, aligned.training.history)
    (folder / "report.html").write_text(report, encoding="utf-8")
    (folder / "README.md").write_text(_card(figures, facts), encoding="utf-8")


def facts_of(figures: dict[str, Any]) -> dict[str, str]:
    """
    What a report and a card say of how a student was made.

    :param figures: The content of `metrics.json`.
    :returns: Label -> text.
    """
    made = figures["provenance"]
    index, settings, trained = made["index"], made["settings"], made["trained_on"]
    kept = "none: a token table" if not made["kept_layers"] else ", ".join(map(str, made["kept_layers"]))
    whole = index.get("sampled_from", index["documents"])
    part = f" (a sample of {whole})" if whole > index["documents"] else ""
    losses = " + ".join(f"{factor:g} x {name}" for name, factor in settings["loss"].items())
    weight = settings.get("passage_weight", 0)  # students of earlier versions have none
    moved = f", those of sentences moved by {weight:g} toward the passages they stand in"
    left_out = "; worse on dev than untrained, so the student is untrained" if made.get("stays_untrained") else ""
    return {
        "Teacher": made["teacher"],
        "Layers kept": kept,
        "Index": f"{index['documents']} documents{part}, {index['dim']} dimensions, {index['similarity']}, "
        f"fingerprint {index['fingerprint'][:16]}",
        "Trained on": f"{trained['queries']} queries and {trained['index_texts']} texts of the index",
        "Loss": losses,
        "Targets": f"the teacher's vectors{moved if weight else ''}",
        "Training": f"{figures['training_seconds']:.0f} s, seed {figures['seed']}{left_out}",
        "Judged by": figures["judged_by"],
    }


def _card(figures: dict[str, Any], facts: dict[str, str]) -> str:
    lines = [
        "---",
        "library_name: sentence-transformers",
        "pipeline_tag: sentence-similarity",
        "tags: [sentence-transformers, haystack-distill, query-encoder]",
        "---",
        "",
        "# A query encoder for one index",
        "",
        f"Its nDCG@10 is {100 * figures['share_of_teacher']:.1f} % of its teacher's.",
        f"It is {figures['speedup']:.1f} times as fast, one query at a time.",
        "It embeds queries; documents stay as the teacher embedded them.",
        "",
        "| | nDCG@10 | 95 % | recall@10 | MRR@10 | ms a query |",
        "|---|---|---|---|---|---|",
    ]
    for name in ("teacher", "cut_only", "student"):
        row = figures[name]
        low, high = row["intervals"]["ndcg@10"]
        lines.append(
            f"| {name} | {row['ndcg@10']:.3f} | {low:.3f} to {high:.3f} | {row['recall@10']:.3f} | {row['mrr@10']:.3f} "
            f"| {row['encode_ms']:.2f} |"
        )
    lines += ["", *(f"- {label}: {text}" for label, text in facts.items()), ""]
    lines += [
        "```python",
        "from haystack_distill import KaleQueryEncoder",
        "",
        'KaleQueryEncoder(model="this folder")',
        "```",
    ]
    return "\n".join(lines) + "\n"
