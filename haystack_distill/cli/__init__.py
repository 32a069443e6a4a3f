# SPDX-FileCopyrightText: 2026-present haystack-distill contributors
#
# SPDX-License-Identifier: Apache-2.0

"""The command line: every command builds the pipeline that a YAML would describe, and runs it."""

import json
import logging
import shutil
from pathlib import Path
from typing import Annotated, Any

import typer
import yaml
from haystack import Document, Pipeline
from haystack.document_stores.in_memory import InMemoryDocumentStore
from haystack.utils.deserialization import deserialize_component_inplace
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from haystack_distill.cli import augment, distill, label, reindex, replies
from haystack_distill.data.beir import read_corpus

app = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False)
app.command("augment")(augment.augment)
app.command("label")(label.label)
app.command("distill")(distill.distill)
app.command("heads")(label.choose_heads)
app.command("reindex")(reindex.reindex)
app.command("compare-replies")(replies.compare_replies)
console = Console()
logger = logging.getLogger(__name__)

STORE = typer.Option(
    help="A YAML with `type` and `init_parameters` of a document store that holds the folder's documents, embedded; "
    "by default they are embedded into memory."
)


@app.callback()
def main() -> None:
    """Move what a slow model knows into the retriever you already have."""
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    for noisy in ("sentence_transformers", "transformers", "httpx", "faiss", "datasets"):
        logging.getLogger(noisy).setLevel(logging.WARNING)


@app.command()
def align(
    folder: Annotated[Path, typer.Argument(help="A BEIR folder: corpus.jsonl, queries.jsonl, qrels/*.tsv.")],
    model: Annotated[str, typer.Option(help="The encoder of the documents: folder or hub name.")],
    output: Annotated[Path, typer.Option(help="The folder to make; it must not exist.")],
    layers: Annotated[int, typer.Option(help="How many layers stay; 0 asks for a token table.")] = 2,
    keep: Annotated[str | None, typer.Option(help="The layers that stay, as 0,5, or 'kale' for the paper's.")] = None,
    queries: Annotated[bool, typer.Option(help="Align on the train queries too, or on the index alone.")] = True,
    loss: Annotated[str | None, typer.Option(help="Weighted losses, as mse=1,index_ranking=2.")] = None,
    epochs: Annotated[int | None, typer.Option(help="Passes over the texts; default: what fits some minutes.")] = None,
    export: Annotated[list[str] | None, typer.Option(help="Export it too, as onnx-int8; can be given again.")] = None,
    seed: Annotated[int, typer.Option(help="Of order and sampling.")] = 0,
    store: Annotated[Path | None, STORE] = None,
    progress: Annotated[bool, typer.Option(help="Show progress bars.")] = True,
) -> None:
    """Cut the query encoder of an index, align it with the index, and prove it on the test split of a BEIR folder."""
    from haystack_integrations.components.distill.kale_aligner import KaleAligner

    kept, weights = _layer_numbers(keep), _weights(loss)
    _show_progress(progress)

    def job() -> dict[str, Any]:
        aligner = KaleAligner(
            document_store=_store(store, folder, model, output, progress),
            teacher=model,
            output=str(output),
            layers=layers,
            keep=kept,
            loss=weights,
            epochs=epochs,
            seed=seed,
            export=export,
            progress_bar=progress,
        )
        pipeline = Pipeline()
        pipeline.add_component("aligner", aligner)
        given = queries and (folder / "qrels" / "train.tsv").is_file()
        if queries and not given:
            logger.warning("%s has no qrels/train.tsv: aligning with the text of the index alone.", folder)
        inputs: dict[str, Any] = {"queries": str(folder) if given else None}
        if (folder / "qrels" / "test.tsv").is_file():
            inputs["test"] = str(folder)
        return pipeline.run({"aligner": inputs})["aligner"]

    result = _explained(job)
    _print_metrics(result["metrics"])
    console.print(f"Model, metrics.json and report.html are in {output}", highlight=False, soft_wrap=True)


@app.command("export")
def export_model(
    model: Annotated[Path, typer.Argument(help="A student's folder.")],
    backend: Annotated[str, typer.Option(help="onnx, openvino or torch.")] = "onnx",
    precision: Annotated[str, typer.Option(help="fp32 or int8.")] = "int8",
    data: Annotated[
        Path | None, typer.Option(help="A BEIR folder to judge it on, for encoders that `align` did not make.")
    ] = None,
) -> None:
    """Export a query encoder for faster serving, beside its folder; refused if its dev nDCG@10 suffers."""
    _show_progress(True)

    def job() -> tuple[Path, Any]:
        from haystack_distill.data.beir import read_beir
        from haystack_distill.evaluation.dev_set import dev_set_of_texts, read_dev_set
        from haystack_distill.serving.export import export
        from haystack_distill.serving.exports import read_export
        from haystack_distill.students.bi_encoder import BiEncoder

        if data is None:
            dev = read_dev_set(model)
        else:
            dev = dev_set_of_texts(list(read_beir(data).documents.values()), BiEncoder.load(str(model)))
        folder = export(model, backend, precision, dev)
        return folder, read_export(folder)

    folder, made = _explained(job)
    console.print(
        f"{folder}: {100 * made.share:.1f} % of the dev nDCG@10 at full precision, mean cosine {made.cosine:.4f}",
        highlight=False,
        soft_wrap=True,
    )


@app.command()
def evaluate(
    folder: Annotated[Path, typer.Argument(help="A BEIR folder.")],
    model: Annotated[str, typer.Option(help="The encoder of the documents: folder or hub name.")],
    student: Annotated[list[Path], typer.Option(help="A student's folder; can be given several times.")],
    output: Annotated[Path, typer.Option(help="The folder to make; it must not exist.")],
    split: Annotated[str, typer.Option(help="Which judgments to use.")] = "test",
    store: Annotated[Path | None, STORE] = None,
) -> None:
    """Measure students beside the encoder of the index, and write metrics.json and report.html."""
    from haystack_distill.files.folders import workspace_for
    from haystack_integrations.components.distill.retrieval_evaluator import RetrievalEvaluator

    _show_progress(True)

    def job() -> dict[str, Any]:
        workspace = workspace_for(output)
        students = {path.resolve().name: str(path) for path in student}
        if len(students) < len(student):
            msg = f"Two of the students are called alike ({', '.join(map(str, student))}): rename a folder."
            raise ValueError(msg)
        evaluator = RetrievalEvaluator(
            document_store=_store(store, folder, model, output, progress=True),
            teacher=model,
            students=students,
            output=str(output),
            split=split,
        )
        pipeline = Pipeline()
        pipeline.add_component("evaluator", evaluator)
        result = pipeline.run({"evaluator": {"queries": str(folder)}})["evaluator"]
        shutil.rmtree(workspace, ignore_errors=True)
        return result

    _print_metrics(_explained(job)["metrics"])
    console.print(f"metrics.json and report.html are in {output}", highlight=False, soft_wrap=True)


@app.command()
def run(
    pipeline: Annotated[Path, typer.Argument(help="A pipeline YAML with inputs: and outputs:.")],
    inputs: Annotated[list[str] | None, typer.Argument(help="Inputs, as query='how do I ...' or top_k=3.")] = None,
) -> None:
    """Run a pipeline YAML with the inputs that it names."""
    from haystack_integrations.components.distill.pipelines import load_pipeline

    def job() -> dict[str, Any]:
        loaded = load_pipeline(pipeline)
        try:
            sockets = loaded.__haystack_input__._sockets_dict  # type: ignore[attr-defined]  # set by the decorator
            return loaded.run(**_values(inputs or [], sockets))
        finally:
            loaded.pipeline.close()

    console.print_json(json.dumps(_explained(job), default=_plain))


def _explained(job: Any) -> Any:
    """Run a job; what the user can mend is one sentence and exit code 1, anything else a traceback."""
    from haystack.core.errors import DeserializationError, PipelineRuntimeError, SerializationError
    from haystack.document_stores.errors import DocumentStoreError

    explained: tuple[type[Exception], ...] = (ValueError, TypeError, OSError, ImportError, yaml.YAMLError)
    explained += (SerializationError, DeserializationError, DocumentStoreError)
    try:
        return job()
    except Exception as error:
        cause = error.__cause__ if isinstance(error, PipelineRuntimeError) and error.__cause__ else error
        if not isinstance(cause, explained):
            raise
        sentence = str(cause)
        if isinstance(cause, DeserializationError) and cause.__cause__:  # Haystack shows all of the component first
            sentence = f"{sentence.partition(' with the following')[0]}: {cause.__cause__}."
        Console(stderr=True).print("[red]Error:[/red]", escape(sentence), highlight=False, soft_wrap=True)
        raise typer.Exit(1) from None


def _show_progress(progress: bool) -> None:
    """Bars for what takes long; loading and saving need none."""
    from transformers.utils import logging as transformers_logging

    transformers_logging.disable_progress_bar()
    if not progress:
        logging.getLogger().setLevel(logging.WARNING)


def _values(inputs: list[str], sockets: dict[str, Any]) -> dict[str, Any]:
    """What was typed as name=value. Where a text is wanted it is one: a query may look like a number, or like YAML."""
    values = {}
    for one in inputs:
        name, equals, value = one.partition("=")
        if not equals or name not in sockets:
            fault = "has no value" if not equals else "is not one of the pipeline's"
            msg = f"The input {one!r} {fault}: write it as name=value; the names are {', '.join(sockets)}."
            raise ValueError(msg)
        values[name] = value if sockets[name].type in (str, str | None) else yaml.safe_load(value)
    return values


def _store(file: Path | None, folder: Path, model: str, output: Path, progress: bool) -> Any:
    """The document store that a YAML describes, or one that is made of the folder."""
    # With a store too: a folder that is not there must not pass for one without queries.
    documents = read_corpus(folder / "corpus.jsonl")
    if file is None:
        return _indexed(documents, model, output, progress)
    described = {"document_store": yaml.safe_load(file.read_text(encoding="utf-8"))}
    deserialize_component_inplace(described, "document_store")
    return described["document_store"]


def _bm25_retriever(documents: dict[str, str]) -> Any:
    """Search documents by words."""
    from haystack.components.retrievers.in_memory import InMemoryBM25Retriever

    store = InMemoryDocumentStore()
    store.write_documents([Document(id=key, content=text) for key, text in documents.items() if text])
    return InMemoryBM25Retriever(store)


def _embedding_retriever(documents: dict[str, str], model: str, output: Path, progress: bool) -> Any:
    """Search documents with an encoder; their vectors are kept beside a folder of their own name."""
    from haystack.components.retrievers.in_memory import InMemoryEmbeddingRetriever

    from haystack_distill.serving.hub import local_folder
    from haystack_integrations.components.distill.distilled_retriever import DistilledRetriever
    from haystack_integrations.components.distill.kale_query_encoder import KaleQueryEncoder

    store = _indexed(documents, model, output.with_name(f"{output.name}.index"), progress)
    encoder = KaleQueryEncoder(model=local_folder(model))
    return DistilledRetriever(retriever=InMemoryEmbeddingRetriever(store), query_encoder=encoder)


def _indexed(documents: dict[str, str], model: str, output: Path, progress: bool) -> InMemoryDocumentStore:
    """Embed documents into memory; a killed run finds the vectors again."""
    from haystack_distill.data.index import stored_vectors
    from haystack_distill.files.folders import workspace_for
    from haystack_distill.students.bi_encoder import BiEncoder

    workspace = workspace_for(output)
    teacher = BiEncoder.load(model)
    texts = list(documents.values())
    vectors = stored_vectors(
        workspace / "documents.npy", [model, *texts], lambda: teacher.encode_documents(texts, progress=progress)
    )
    store = InMemoryDocumentStore(embedding_similarity_function=_similarity(teacher.model.similarity_fn_name, model))
    store.write_documents(
        [
            Document(id=document_id, content=text, embedding=vector.tolist())
            for (document_id, text), vector in zip(documents.items(), vectors, strict=True)
        ]
    )
    return store


def _similarity(name: str, model: str) -> Any:
    """How the encoder's maker compares its vectors, as the store in memory calls it."""
    names = {"cosine": "cosine", "dot": "dot_product"}
    if name not in names:
        msg = f"{model} compares vectors by {name}, and a store in memory by cosine or dot product: run a YAML."
        raise ValueError(msg)
    return names[name]


def _layer_numbers(keep: str | None) -> list[int] | str | None:
    if keep is None or keep == "kale":
        return keep
    try:
        return [int(number) for number in keep.split(",")]
    except ValueError as error:
        msg = f"--keep {keep!r} is neither 'kale' nor layer numbers like 0,5."
        raise typer.BadParameter(msg) from error


def _weights(loss: str | None) -> dict[str, float] | None:
    if loss is None:
        return None
    try:
        return {name: float(weight) for name, weight in (term.split("=") for term in loss.split(","))}
    except ValueError as error:
        msg = f"--loss {loss!r} is not of the form mse=1,index_ranking=2."
        raise typer.BadParameter(msg) from error


def _print_metrics(metrics: dict[str, Any]) -> None:
    table = Table()
    for column in ("query encoder", "nDCG@10", "recall@10", "MRR@10", "ms a query"):
        table.add_column(column, justify="left" if column == "query encoder" else "right")
    for name, figures in metrics.items():
        if isinstance(figures, dict) and "encode_ms" in figures:
            values = [f"{figures[measure]:.3f}" for measure in ("ndcg@10", "recall@10", "mrr@10")]
            table.add_row(name.replace("_", " "), *values, f"{figures['encode_ms']:.2f}")
    console.print(table)
    console.print(
        f"{100 * metrics['share_of_teacher']:.1f} % of the teacher's nDCG@10, {metrics['speedup']:.1f} times as fast",
        highlight=False,
    )


def _plain(value: Any) -> Any:
    return value.to_dict() if hasattr(value, "to_dict") else str(value)
