"""Two encoders, the whole job: trained on a labelled set, measured beside the one they came from, and written."""

from dataclasses import replace
from pathlib import Path
from typing import Any

from haystack_distill.data.index import IndexView
from haystack_distill.data.training_set import TrainingSet
from haystack_distill.distill.pair import (
    SUMMARY,
    AsymmetricPair,
    AsymmetricSettings,
    embedded,
    rows_of_training_set,
    run_of,
    train_asymmetric,
)
from haystack_distill.distill.targets import held_out, targets_of
from haystack_distill.evaluation.card import Card
from haystack_distill.evaluation.comparison import measure_move, student_system, teacher_system
from haystack_distill.evaluation.held_out import Asked, Dev, splits_of
from haystack_distill.evaluation.measures import headline
from haystack_distill.evaluation.proof import (
    UNTOUCHED,
    Evidence,
    Result,
    finished,
    left_out_fact,
    prove,
    recommendation_fact,
)
from haystack_distill.evaluation.quality import measure, search
from haystack_distill.files.runs import fingerprint
from haystack_distill.students.bi_encoder import BiEncoder


def train_and_prove_pair(
    encoder: BiEncoder,
    name: str,
    training_set: TrainingSet,
    index: IndexView,
    settings: AsymmetricSettings,
    output: Path,
    workspace: Path,
    judged: str | None = None,
    *,
    progress: bool = True,
) -> dict[str, Any]:
    """
    Train a query and a document encoder on the teacher's favourites and write both with their proof into a new folder.

    What they are cut from is the encoder with the settings of its index. For the rest see `distill_and_prove` and
    `train_asymmetric`.
    """
    seed = settings.training.seed
    dev, test = splits_of(judged, index)
    tested = Asked(test[0].values() if test else ())
    if dev:
        chosen = dev.without(tested)
    else:
        untested = (row for row in training_set.labelled() if row.query not in tested)
        chosen = held_out(targets_of(untested, index.ids), index, seed)
    everything = rows_of_training_set(training_set)
    selecting = Asked(chosen.queries.values())
    kept = [row for row, query in enumerate(everything["query"]) if query not in tested and query not in selecting]
    if not kept:
        msg = f"All {len(everything)} questions of the training set are asked in dev or test too: give others."
        raise ValueError(msg)
    rows = everything.select(kept)
    left_out = {
        "train": len(everything) - len(rows) - (0 if dev else len(chosen.queries)),
        "dev": len(dev.queries) - len(chosen.queries) if dev else 0,
    }
    run = run_of(encoder, rows, settings, index, chosen.queries, chosen.qrels)
    done = finished(output, run)
    if done is not None:
        return done
    pair = train_asymmetric(encoder, rows, settings, workspace, index, chosen.queries, chosen.qrels, progress=progress)

    def measured() -> Result:
        queries, qrels = test or (chosen.queries, chosen.qrels)
        before = replace(teacher_system(encoder), name=UNTOUCHED)
        after = student_system("student", pair.query_model, pair.summary["seconds"])
        moved = replace(index, vectors=embedded(pair.document_model, index.texts))
        systems = measure_move(before, after, index, moved, queries, qrels)
        evidence = Evidence(systems, index, queries, qrels, seed, UNTOUCHED)
        old, new = _on_dev(encoder, pair, index, moved, chosen)
        figures = {
            **evidence.figures(),
            "recommended": "student" if new > old else UNTOUCHED,
            "dev": {"before": old, "after": new, "judged": chosen.judged},
            "training_seconds": pair.summary["seconds"],
            "judged_by": "judged test queries" if test else chosen.judge,
            "left_out": left_out,
            "embed_again": "all documents",
            "provenance": {
                "trained": name,
                "teacher": training_set.manifest["teacher"],
                "dev_judged": chosen.judged,
                **pair.summary,
                "made_of": fingerprint(run),
            },
        }
        history = [{"epoch": 0.0, "dev_ndcg@10": old}, *pair.summary["history"]]
        said = [headline(figures, UNTOUCHED), "`query` embeds queries, `document` embeds all documents again."]
        learnt_from = training_set.manifest["source"]
        card = Card("A query and a document encoder of different depth", "retriever", said, name, learnt_from)
        return Result(evidence, figures, _facts(figures), history, pair.models, card, files={SUMMARY: pair.summary})

    return prove(output, measured)


def _on_dev(
    encoder: BiEncoder, pair: AsymmetricPair, index: IndexView, moved: IndexView, dev: Dev
) -> tuple[float, float]:
    """Dev nDCG@10 of the encoder in its index, and of the pair in the index as it will be."""
    asked = list(dev.qrels)
    texts = [dev.queries[query_id] for query_id in asked]
    before = search(index, asked, encoder.encode_queries(texts))
    after = search(moved, asked, embedded(pair.query_model, texts))
    return measure(before, dev.qrels).mean(), measure(after, dev.qrels).mean()


def _facts(figures: dict[str, Any]) -> dict[str, str]:
    made = figures["provenance"]
    return {
        "Recommendation": recommendation_fact(figures),
        "Trained": made["trained"],
        "Layers": f"{made['layers']['query']} of queries, {made['layers']['document']} of documents",
        "To be embedded again": figures["embed_again"],
        "Training": f"{made['rows']} queries, {made['seconds']:.0f} s",
        "Left out, since dev or test asks it": left_out_fact(figures["left_out"]),
        "Judged by": figures["judged_by"],
    }
