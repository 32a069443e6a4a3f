"""
Hybrids over stores: pipelines/hybrid_fusion.yaml and hybrid.yaml over the one that they name, and sparse vectors.

Judgments are the teacher.
"""

import asyncio
import zlib
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest
import yaml
from haystack import component
from haystack.dataclasses import SparseEmbedding
from haystack_integrations.components.retrievers.qdrant import QdrantEmbeddingRetriever, QdrantSparseEmbeddingRetriever
from haystack_integrations.document_stores.qdrant import QdrantDocumentStore

from haystack_distill import (
    DistilledHybridRetriever,
    DistilledRetriever,
    FusionDistiller,
    KaleQueryEncoder,
    TrainingSetBuilder,
    load_pipeline,
)
from haystack_distill.data.training_set import TrainingSet
from tests.conftest import write_beir

PIPELINES = Path(__file__).parents[2] / "pipelines"


def test_the_pipelines_of_a_hybrid_run_over_the_store_that_they_name(
    backend, opener, documents, passages, bert, tmp_path, monkeypatch
):
    if backend.name != "pgvector":
        pytest.skip(f"{backend.name} is not the store of these pipelines")
    store = opener(documents)
    monkeypatch.chdir(tmp_path)
    queries = {f"q{n}": " ".join(passages[f"d{n}"].split()[:3]) for n in range(40)}
    splits = {"train": range(30), "test": range(30, 40)}
    asked = write_beir(
        tmp_path / "asked", passages, queries, {s: {f"q{n}": f"d{n}" for n in of} for s, of in splits.items()}
    )
    fusing = _loaded("hybrid_fusion.yaml", store.table_name, bert, tmp_path)
    metrics = fusing.run(queries=str(asked), judged=str(asked))["metrics"]
    assert metrics["queries"] == 10
    assert sum(metrics["weights"].values()) == pytest.approx(1)
    asking = _loaded("hybrid.yaml", store.table_name, bert, tmp_path)
    found = asking.run(query=queries["q3"], top_k=4)["documents"]
    assert len(found) == 4
    scores = [document.score for document in found]
    assert scores == sorted(scores, reverse=True)
    assert all(document.meta["retriever_scores"].keys() <= {"keyword", "dense"} for document in found)


def _loaded(name: str, table_name: str, model: str, place: Path):
    """The YAML with a small model, and the test's own table in the place of the default one."""
    content = yaml.safe_load((PIPELINES / name).read_text())
    for part in content["components"].values():
        part["init_parameters"].pop("scorer", None)  # which lets judgments teach, as the YAML says

    def changed(value):
        if not isinstance(value, dict):
            return model if value == "models/minilm-2-layers" else value
        small = {"embedding_dimension": 32, "table_name": table_name} if "embedding_dimension" in value else {}
        return {key: changed(item) for key, item in value.items()} | small

    (place / name).write_text(yaml.safe_dump(changed(content)))
    return load_pipeline(place / name)


@component
class WordCounts:
    """A sparse text embedder: how often each word comes."""

    @component.output_types(sparse_embedding=SparseEmbedding)
    def run(self, text: str):
        return {"sparse_embedding": counted(text)}


def counted(text: str) -> SparseEmbedding:
    counts = Counter(zlib.crc32(word.encode()) >> 8 for word in text.lower().split())
    return SparseEmbedding(sorted(counts), [float(counts[key]) for key in sorted(counts)])


def test_a_hybrid_of_dense_and_sparse_vectors(documents, passages, bert, tmp_path):
    """Qdrant's: fitted to judgments and served, sync and async; the sparse side ranks as the counts of words do."""
    store = QdrantDocumentStore(
        path=str(tmp_path / "index"), embedding_dim=32, similarity="cosine", use_sparse_embeddings=True
    )
    sparse = [replace(one, sparse_embedding=counted(one.content)) for one in documents]
    store.write_documents(sparse)
    queries = {f"q{n}": " ".join(passages[f"d{n}"].split()[:3]) for n in range(40)}
    judged = {s: {f"q{n}": f"d{n}" for n in of} for s, of in {"train": range(30), "test": range(30, 40)}.items()}
    asked = write_beir(tmp_path / "asked", passages, queries, judged)
    retrievers = {
        "words": DistilledRetriever(query_encoder=WordCounts(), retriever=QdrantSparseEmbeddingRetriever(store)),
        "dense": DistilledRetriever(query_encoder=KaleQueryEncoder(bert), retriever=QdrantEmbeddingRetriever(store)),
    }
    found = retrievers["words"].run(query=queries["q3"], top_k=5)["documents"]
    words = Counter(queries["q3"].lower().split())
    overlap = {one.id: sum(words[word] for word in one.content.lower().split()) for one in documents}
    assert [one.score for one in found] == pytest.approx(sorted(overlap.values(), reverse=True)[:5])
    assert [overlap[one.id] for one in found] == pytest.approx([one.score for one in found])
    folder = str(tmp_path / "set")
    TrainingSetBuilder(retriever=retrievers["words"], output=folder, top_k=5, progress_bar=False).run(str(asked))
    row = next(one for one in TrainingSet.open(folder) if one.query_id == "q3")
    assert row.document_ids == [one.id for one in found]
    assert row.retriever_scores == pytest.approx([1, 1 / 2, 1 / 3, 1 / 4, 1 / 5])
    distiller = FusionDistiller(retrievers=retrievers, output=str(tmp_path / "hybrid"), progress_bar=False)
    metrics = distiller.run(queries=str(asked), judged=str(asked))["metrics"]
    assert metrics["fitted"]["ndcg@10"] >= max(metrics["dense"]["ndcg@10"], 0.5)
    hybrid = DistilledHybridRetriever(retrievers=retrievers, fusion=str(tmp_path / "hybrid"), top_k=4)
    joined = hybrid.run(query=queries["q33"])["documents"]
    again = asyncio.run(hybrid.run_async(query=queries["q33"]))["documents"]
    assert [one.id for one in joined] == [one.id for one in again]
    assert "d33" in [one.id for one in joined]
    store.close()
