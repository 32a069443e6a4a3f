"""What `benchmarks.serving` times: students with their exports, the stock components, peers, and whole pipelines."""

import shutil
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from fastembed import TextEmbedding
from fastembed.common.model_description import ModelSource, PoolingType
from haystack import Document, Pipeline
from haystack_integrations.components.embedders.sentence_transformers import SentenceTransformersTextEmbedder
from haystack_integrations.components.retrievers.faiss import FAISSEmbeddingRetriever
from haystack_integrations.components.retrievers.qdrant import QdrantEmbeddingRetriever
from haystack_integrations.document_stores.faiss import FAISSDocumentStore
from haystack_integrations.document_stores.qdrant import QdrantDocumentStore
from model2vec import StaticModel
from sentence_transformers import SentenceTransformer

from benchmarks.common import CachedTeacher, minilm, queries_to_align
from haystack_distill import DistilledRetriever, KaleQueryEncoder
from haystack_distill.align.job import align
from haystack_distill.align.settings import KaleSettings
from haystack_distill.align.training import TrainingSettings
from haystack_distill.data.beir import read_beir
from haystack_distill.data.index import IndexView
from haystack_distill.evaluation.dev_set import write_dev_set
from haystack_distill.serving.backends import split_name
from haystack_distill.serving.export import export
from haystack_distill.students.cutting import cut

HOME = "squadshifts/new_wiki"
WORK = Path("benchmark_output/serving")
EXPORTS = ("onnx-fp32", "onnx-int8", "openvino-fp32", "openvino-int8", "torch-int8")


def prepared(folder: Path, teacher: CachedTeacher, index: IndexView, *, quick: bool) -> dict[str, Path]:
    """Students of two, one and no layers and the uncut teacher, all with their exports; made once."""
    place = WORK / ("quick" if quick else "models")
    models = {}
    for layers in (2, 1, 0):
        model = models[f"layers-{layers}"] = place / f"layers-{layers}"
        if not model.exists():
            settings = KaleSettings(layers=layers, training=TrainingSettings(epochs=1 if quick else None))
            corpus = read_beir(folder)
            given, asked = queries_to_align(folder, corpus), corpus.texts_of("test")
            aligned = align(index, teacher, settings, place / "run", given, test=asked)
            _publish(aligned.student, model, aligned.dev, EXPORTS if layers else ())
            shutil.rmtree(place / "run")
            dev = aligned.dev
    uncut = place / "teacher"
    if not uncut.exists():
        _publish(cut(teacher, tuple(range(6))), uncut, dev, EXPORTS)
    return {"teacher": uncut, **models}


def _publish(student: SentenceTransformer, model: Path, dev: Any, exports: tuple[str, ...]) -> None:
    unfinished = model.with_name(f".{model.name}")
    shutil.rmtree(unfinished, ignore_errors=True)
    student.save(str(unfinished), create_model_card=False)
    write_dev_set(unfinished, dev)
    for name in exports:
        export(unfinished, *split_name(name), dev)
    unfinished.rename(model)


def stock_embedder() -> SentenceTransformersTextEmbedder:
    """What a Haystack team has: the teacher in Haystack's own embedder."""
    embedder = SentenceTransformersTextEmbedder(model=minilm(), progress_bar=False, local_files_only=True)
    embedder.warm_up()
    return embedder


def peer_encoders(models: dict[str, Path]) -> dict[str, Callable[[str], Any]]:
    """The same students in other packages' runtimes."""
    table = SentenceTransformer(str(models["layers-0"]), device="cpu")
    static = StaticModel(table[0].embedding.weight.detach().numpy(), table[0].tokenizer, normalize=True)
    fast = {name: _fastembed(models[name]) for name in ("teacher", "layers-2")}
    return {
        "sentence-transformers table": lambda text: table.encode(text, show_progress_bar=False).tolist(),
        "model2vec table": lambda text: static.encode(text).tolist(),
        "fastembed teacher": lambda text: next(iter(fast["teacher"].embed(text))).tolist(),
        "fastembed layers-2": lambda text: next(iter(fast["layers-2"].embed(text))).tolist(),
    }


class _States(torch.nn.Module):
    """What fastembed expects of a graph: hidden states, which it pools itself."""

    def __init__(self, transformer: Any) -> None:
        super().__init__()
        self.transformer = transformer

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
        """`[batch, length, width]`."""
        return self.transformer(input_ids=input_ids, attention_mask=attention_mask).last_hidden_state


def _fastembed(model: Path) -> TextEmbedding:
    folder = model / "fastembed"
    student = SentenceTransformer(str(model), device="cpu", model_kwargs={"attn_implementation": "eager"})
    if not folder.exists():
        folder.mkdir()
        student[0].auto_model.config.save_pretrained(folder)
        student.tokenizer.save_pretrained(folder)
        special = {"pad_token": "[PAD]", "unk_token": "[UNK]", "cls_token": "[CLS]", "sep_token": "[SEP]"}
        (folder / "special_tokens_map.json").write_text(str(special).replace("'", '"'), encoding="utf-8")
        ids = torch.ones(2, 9, dtype=torch.long)
        axes = {name: {0: "batch", 1: "length"} for name in ("input_ids", "attention_mask", "last_hidden_state")}
        torch.onnx.export(
            _States(student[0].auto_model).eval(),
            (ids, ids),
            str(folder / "model.onnx"),
            input_names=["input_ids", "attention_mask"],
            output_names=["last_hidden_state"],
            dynamic_axes=axes,
            opset_version=18,
            dynamo=False,
        )
    name = f"haystack-distill/{model.name}"
    TextEmbedding.add_custom_model(
        model=name,
        pooling=PoolingType.MEAN,
        normalization=True,
        sources=ModelSource(hf=name),
        dim=384,
        model_file="model.onnx",
    )
    return TextEmbedding(name, specific_model_path=str(folder), threads=1)


@dataclass(frozen=True)
class PathToTen:
    """
    A way from a query string to ten documents.

    :param ask: Asks one query.
    :param ask_async: Asks one query without blocking the loop.
    :param backend: Of the query encoder.
    :param precision: Of the query encoder.
    :param retriever: The component that does it all, where there is one.
    """

    ask: Callable[[str], Any]
    ask_async: Callable[[str], Awaitable[Any]]
    backend: str
    precision: str
    retriever: Any = None


def path_pipelines(
    models: dict[str, Path],
    index: IndexView,
    best: tuple[str, str],
    vectors: int,
    kinds: tuple[str, ...] = ("faiss-hnsw", "faiss-exact", "qdrant-local-exact"),
) -> dict[str, dict[str, PathToTen]]:
    """Stores of many vectors, and before each the stock pipeline, the uncut teacher and the students."""
    documents = many_documents(index, vectors)
    stores: dict[str, tuple[Any, Any, dict[str, Any]]] = {
        "faiss-hnsw": (FAISSDocumentStore, FAISSEmbeddingRetriever, {"index_string": "HNSW32,Flat"}),
        "faiss-exact": (FAISSDocumentStore, FAISSEmbeddingRetriever, {"index_string": "Flat"}),
        "qdrant-local-exact": (
            QdrantDocumentStore,
            QdrantEmbeddingRetriever,
            {"location": ":memory:", "similarity": "cosine"},
        ),
    }
    found = {}
    for name in kinds:
        make, retriever, settings = stores[name]
        store = make(embedding_dim=index.dim, **settings)
        for start in range(0, len(documents), 5000):
            store.write_documents(documents[start : start + 5000])
        found[name] = {
            "teacher": _stock(retriever(document_store=store, top_k=10)),
            "uncut": _distilled(models["teacher"], retriever(document_store=store, top_k=10), *best),
            "layers-2": _distilled(models["layers-2"], retriever(document_store=store, top_k=10), *best),
            "layers-0": _distilled(models["layers-0"], retriever(document_store=store, top_k=10), "auto", "fp32"),
        }
    return found


def many_documents(index: IndexView, count: int) -> list[Document]:
    """Real vectors, each many times with some noise, of length 1."""
    random = np.random.default_rng(0)
    documents = []
    for number in range(count):
        row = number % len(index)
        noise = random.standard_normal(index.dim) / np.sqrt(index.dim)
        vector = index.vectors[row] + 0.3 * noise if number >= len(index) else index.vectors[row]
        vector = vector / np.linalg.norm(vector)
        documents.append(Document(id=str(number), content=index.texts[row], embedding=vector.tolist()))
    return documents


def _stock(retriever: Any) -> PathToTen:
    pipeline = Pipeline()
    pipeline.add_component("embedder", stock_embedder())
    pipeline.add_component("retriever", retriever)
    pipeline.connect("embedder.embedding", "retriever.query_embedding")
    return PathToTen(
        lambda text: pipeline.run({"embedder": {"text": text}}),
        lambda text: pipeline.run_async({"embedder": {"text": text}}),
        "haystack",
        "fp32",
    )


def _distilled(model: Path, retriever: Any, backend: str, precision: str) -> PathToTen:
    pipeline = Pipeline()
    encoder = KaleQueryEncoder(str(model), backend=backend, precision=precision)
    component = DistilledRetriever(query_encoder=encoder, retriever=retriever)
    pipeline.add_component("retriever", component)
    return PathToTen(
        lambda text: pipeline.run({"retriever": {"query": text}}),
        lambda text: pipeline.run_async({"retriever": {"query": text}}),
        "numpy" if backend == "auto" else backend,
        precision,
        component,
    )
