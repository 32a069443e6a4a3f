"""KALE, the whole job: a student is aligned, measured on what it did not learn, and written to a folder."""

from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from haystack_distill.align.job import Aligned, Material, material_of, train_on
from haystack_distill.align.settings import KaleSettings
from haystack_distill.align.update import BEFORE, Earlier, index_text_of, learnt, update_facts
from haystack_distill.data.beir import Qrels
from haystack_distill.data.index import IndexView
from haystack_distill.data.own_passages import judged_by_place
from haystack_distill.evaluation.card import Card
from haystack_distill.evaluation.comparison import measure_all, student_system, teacher_system
from haystack_distill.evaluation.held_out import IndexText, Queries, given_queries, judged_split
from haystack_distill.evaluation.measures import headline
from haystack_distill.evaluation.proof import Evidence, Result, finished, index_facts, left_out_fact, prove
from haystack_distill.files.layout import LEARNT
from haystack_distill.files.runs import fingerprint
from haystack_distill.students.bi_encoder import BiEncoder


def align_and_prove(
    index: IndexView,
    teacher: BiEncoder,
    teacher_name: str,
    settings: KaleSettings,
    output: Path,
    workspace: Path,
    queries: str | None,
    test: str | None,
    *,
    another: BiEncoder | None = None,
    earlier: Earlier | None = None,
    text: list[str] | None = None,
    progress: bool = True,
) -> dict[str, Any]:
    """
    Align a student, measure it beside its teacher and the plain cut, and write it all into a new folder.

    :param teacher_name: The folder or hub name of the teacher, for the card.
    :param workspace: See `running`.
    :param another: The encoder that `settings.student` names.
    :param earlier: The student that `settings.update` names; it is measured too.
    :param queries: A BEIR folder or a JSONL file of queries, or None for the index alone.
    :param text: Sentences of other texts than the index, to align on beside it.
    :param test: A BEIR folder with a test split, or None to be judged on held-out sentences by where they stand.
    :returns: The content of `metrics.json`.
    :raises FileNotFoundError: If a path is missing.
    :raises ValueError: See `align`; and if the test folder has no test split for this index.
    """
    seed = settings.training.seed
    parts = index_text_of(index, seed, earlier)[0]
    asked, qrels, judged_by = _test(test, index, parts)
    given = given_queries(queries, seed, asked.values()) if queries else Queries()
    given = replace(given, text=text or [])
    material = material_of(index, teacher, settings, given, asked.values(), earlier)
    done = finished(output, material.run)
    if done is not None:
        return done
    aligned = train_on(index, teacher, settings, workspace, material, progress, another, earlier)

    def measured() -> Result:
        systems = [
            teacher_system(teacher),
            *([student_system("cut_only", aligned.cut_only)] if aligned.cut_only else []),
            *([student_system(BEFORE, earlier.student)] if earlier else []),
            student_system("student", aligned.student, aligned.training.seconds),
        ]
        evidence = Evidence(measure_all(systems, index, asked, qrels), index, asked, qrels, seed)
        figures = {
            **evidence.figures(),
            "kept_layers": list(aligned.kept_layers),
            "training_seconds": aligned.training.seconds,
            "judged_by": judged_by,
            "left_out": material.left_out,
            **({"update": earlier.figures(index, evidence)} if earlier else {}),
            "provenance": _provenance(index, teacher, teacher_name, settings, aligned, material),
        }
        facts, card = _facts(figures), _card(figures, queries)
        history = [{"epoch": 0.0, "dev_ndcg@10": aligned.before}, *aligned.training.history]
        marks = {LEARNT: learnt(index, parts.proof.values())}
        models = {"": aligned.student}
        return Result(evidence, figures, facts, history, models, card, aligned.dev, tensors=marks)

    return prove(output, measured)


def _test(test: str | None, index: IndexView, parts: IndexText) -> tuple[dict[str, str], Qrels, str]:
    if test is not None:
        return *judged_split(test, "test", index), "judged test queries"
    qrels = judged_by_place(parts.proof, parts.places, index)
    if len(qrels) < 2:
        msg = (
            f"The {len(index)} documents have {len(parts.places)} sentences, too few to hold some out for the "
            "proof: give `test`, a BEIR folder with a test split."
        )
        raise ValueError(msg)
    return parts.proof, qrels, "held-out sentences of the index, judged by the passages they stand in"


def _provenance(
    index: IndexView,
    teacher: BiEncoder,
    teacher_name: str,
    settings: KaleSettings,
    aligned: Aligned,
    material: Material,
) -> dict[str, Any]:
    return {
        "teacher": teacher_name,
        "student": settings.student,
        "kept_layers": list(aligned.kept_layers),
        "index": index_facts(index),
        "query_prefix": teacher.query_prefix,
        "trained_on": aligned.texts,
        "layer_search": aligned.searched,
        "ridge": aligned.solved and {"penalty": aligned.solved.penalty, "dev_ndcg@10": aligned.solved.by_penalty},
        "settings": asdict(settings),
        "history": aligned.training.history,
        "stays_untrained": aligned.stays_untrained,
        "made_of": fingerprint(material.run),
    }


def _facts(figures: dict[str, Any]) -> dict[str, str]:
    """What a report and a card say of how a student was made."""
    made, update = figures["provenance"], figures.get("update")
    index, settings, trained = made["index"], made["settings"], made["trained_on"]
    part = f" (a sample of {index['sampled_from']})" if index["sampled_from"] > index["documents"] else ""
    weight = settings["passage_weight"]
    moved = f", those of sentences moved by {weight:g} toward the passages they stand in" if weight else ""
    others = f", and {trained['general_texts']} other texts" if trained["general_texts"] else ""
    untrained = "; worse on dev than untrained, so the student is untrained" if made["stays_untrained"] else ""
    layers = ", ".join(map(str, made["kept_layers"])) or "none: a token table"
    return {
        "Teacher": made["teacher"],
        **({"Student": f"{made['student']}, and a linear map"} if made["student"] else {"Layers kept": layers}),
        **(update_facts(update) if update else {}),
        "Index": f"{index['documents']} documents{part}, {index['dim']} dimensions, {index['similarity']}, "
        f"fingerprint {index['fingerprint'][:16]}",
        "Trained on": f"{trained['queries']} queries and {trained['index_texts']} texts of the index{others}",
        "Left out, since dev or test asks it": left_out_fact(figures["left_out"]),
        "Loss": _loss(made),
        "Targets": f"the teacher's vectors{moved}",
        "Training": f"{figures['training_seconds']:.0f} s, seed {figures['seed']}{untrained}",
        "Judged by": figures["judged_by"],
    }


def _loss(made: dict[str, Any]) -> str:
    """What was minimised, in a few words."""
    ridge = made["ridge"]
    if ridge is None:
        return " + ".join(f"{factor:g} x {name}" for name, factor in made["settings"]["loss"].items())
    best = ridge["penalty"]
    return f"ridge regression, {'worse than the untrained table' if best is None else f'penalty {best:g}'}"


def _card(figures: dict[str, Any], queries: str | None) -> Card:
    """The model card of a student, from the content of its `metrics.json`."""
    said = [headline(figures), "It embeds queries; documents stay as the teacher embedded them."]
    base = figures["provenance"]["student"] or figures["provenance"]["teacher"]
    return Card("A query encoder for one index", "query-encoder", said, base, learnt_from=queries)
