"""Every job of bulk work gives the same bits with one worker and with two, and refuses what workers can't do."""

import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from haystack import Document, component
from haystack.components.retrievers.in_memory import InMemoryBM25Retriever
from haystack_integrations.components.retrievers.faiss import FAISSEmbeddingRetriever

from haystack_distill import (
    DistilledRetriever,
    GenerativeAugmenter,
    KaleAligner,
    KaleQueryEncoder,
    TeacherLabeller,
    TeacherLikelihoodScorer,
    TrainingSetBuilder,
)
from haystack_distill.data.training_set import write_training_set
from haystack_distill.students.bi_encoder import BiEncoder
from haystack_integrations.components.distill.parts import reembedding
from tests.augmenting import DOCUMENTS
from tests.data.test_training_set import rows
from tests.indexes import make_store, switcher
from tests.readers import save_reader

pytest.importorskip("ray.data", reason="the extra `ray` is not installed")
pytestmark = pytest.mark.usefixtures("two_cores")


def content(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_labels(llama, tmp_path):
    for workers in (1, 2):
        folder = write_training_set(tmp_path / f"set-{workers}", rows(9), shard_rows=4).folder
        scorer = TeacherLikelihoodScorer(model=llama)
        labeller = TeacherLabeller(scorer=scorer, rows_at_once=2, progress_bar=False, num_workers=workers)
        assert labeller.run(training_set=str(folder))["summary"]["labelled"] == 9
    assert content(tmp_path / "set-1") == content(tmp_path / "set-2")


def test_documents_embedded_anew(place, documents, bert, other, beir, monkeypatch):
    monkeypatch.setattr(reembedding, "WRITE", 7)
    for workers in (1, 2):
        (place / str(workers)).mkdir()
        one = switcher("faiss", place / str(workers), documents, bert, other, max_loss=1.0, num_workers=workers)
        assert one.run(queries=str(beir))["switched"]
    first, second = (make_store("faiss", place / f"{workers}/new").filter_documents() for workers in (1, 2))
    assert first == second
    assert len(first) == 60


def test_teacher_targets(store, bert, beir, tmp_path):
    for workers in (1, 2):
        aligner = KaleAligner(
            document_store=store,
            teacher=bert,
            layers=0,
            fit="ridge",
            output=str(tmp_path / f"table-{workers}"),
            num_workers=workers,
            progress_bar=False,
        )
        aligner.run(queries=str(beir), test=str(beir))
    first, second = (next((tmp_path / f"table-{workers}").rglob("*.safetensors")).read_bytes() for workers in (1, 2))
    assert first == second


def test_candidates(place, documents, bert, beir):
    index = make_store("faiss", place / "index", documents)
    retriever = FAISSEmbeddingRetriever(document_store=index, top_k=5)
    both = DistilledRetriever(retriever=retriever, query_encoder=KaleQueryEncoder(model=bert))
    for workers in (1, 2):
        builder = TrainingSetBuilder(
            retriever=both, output=f"set-{workers}", top_k=5, shard_rows=8, num_workers=workers, progress_bar=False
        )
        assert builder.run(queries=str(beir))["rows"] == 30
    assert content(place / "set-1") == content(place / "set-2")


def test_generated_text(tmp_path):
    model = save_reader("llama", tmp_path / "model", chat=True)
    for workers in (1, 2):
        augmenter = GenerativeAugmenter(
            model=model,
            output=str(tmp_path / f"questions-{workers}"),
            n=2,
            batch_size=4,
            examples=[],
            words=[0, 100],
            without=["no_question", "generic", "repetition"],
            sampling={"max_new_tokens": 8},
            num_workers=workers,
            progress_bar=False,
        )
        assert augmenter.run(documents=DOCUMENTS)["summary"]["kept"]
    assert content(tmp_path / "questions-1") == content(tmp_path / "questions-2")


def test_workers_without_the_model_say_so_in_its_own_words(bert, tmp_path):
    shutil.copytree(bert, tmp_path / "gone")
    encoder = BiEncoder.load(str(tmp_path / "gone"), device="cpu")
    shutil.rmtree(tmp_path / "gone")
    with pytest.raises(OSError, match="gone") as error:
        replace(encoder, num_workers=2).encode_targets(["a river"])
    assert "ray" not in str(error.value).lower()


def test_a_store_in_memory_can_t_be_searched_by_workers(store, beir, tmp_path):
    builder = TrainingSetBuilder(
        retriever=InMemoryBM25Retriever(store), output=str(tmp_path / "set"), num_workers=2, progress_bar=False
    )
    with pytest.raises(ValueError, match="Workers can't search what the InMemoryDocumentStore keeps in"):
        builder.run(queries=str(beir))
    assert not list(tmp_path.glob("*set*"))


def test_a_hybrid_s_stores_are_not_known_to_workers(store, beir, tmp_path):
    @component
    class Hybrid:
        @component.output_types(documents=list[Document])
        def run(self, query: str):
            return InMemoryBM25Retriever(store).run(query=query)

    builder = TrainingSetBuilder(retriever=Hybrid(), output=str(tmp_path / "set"), num_workers=2, progress_bar=False)
    with pytest.raises(ValueError, match="none of Hybrid is known: take num_workers=1"):
        builder.run(queries=str(beir))


def test_numbers_of_workers_that_make_no_sense(tmp_path):
    with pytest.raises(ValueError, match="num_workers must be at least 1"):
        TeacherLabeller(scorer=None, num_workers=0)
    with pytest.raises(ValueError, match="num_workers is for a local model"):
        GenerativeAugmenter(generator=object(), output=str(tmp_path), num_workers=2)
