"""Students that learn what came into their index."""

import json
from pathlib import Path

import numpy as np
import pytest
from haystack import Document
from haystack.document_stores.in_memory import InMemoryDocumentStore
from haystack.document_stores.types import DuplicatePolicy
from safetensors.numpy import save_file
from sentence_transformers import SentenceTransformer

from haystack_distill import KaleAligner
from haystack_distill.align.ridge import solve_table, token_counts
from haystack_distill.align.settings import KaleSettings
from haystack_distill.students.token_table import make_token_table
from haystack_distill.training.trainer import METRIC
from tests.conftest import sentences


@pytest.fixture
def filled(teacher):
    """A store of documents of three sentences; the same number is the same document."""

    def made(numbers, seed: int = 1, encoder=teacher):
        lines = sentences(1200, seed=seed)
        texts = {f"d{number}": " ".join(lines[3 * number : 3 * number + 3]) for number in numbers}
        store = InMemoryDocumentStore(embedding_similarity_function="cosine")
        vectors = encoder.encode_documents(list(texts.values()))
        pairs = zip(texts.items(), vectors, strict=True)
        store.write_documents([Document(id=key, content=text, embedding=row.tolist()) for (key, text), row in pairs])
        return store

    return made


@pytest.fixture
def align(bert, tmp_path):
    def run(store, name, **settings):
        output = str(tmp_path / name)
        aligner = KaleAligner(document_store=store, teacher=bert, output=output, progress_bar=False, **settings)
        return aligner.run()

    return run


class Chosen:
    """A dev measure by which the table of one penalty, counted from the untrained one, is the best."""

    def __init__(self, best: int) -> None:
        self.best, self.calls = best, -1

    def __call__(self, _) -> dict[str, float]:
        self.calls += 1
        return {METRIC: float(self.calls == self.best)}


def test_an_updated_table_is_the_one_that_all_texts_together_give(teacher):
    """By a dense solver that knows nothing of updates."""
    old, new = sentences(60, seed=3), sentences(30, seed=4)
    table = make_token_table(teacher)
    weight = table[0].embedding.weight
    untrained = weight.detach().numpy().copy()
    old_vectors, new_vectors = teacher.encode_queries(old), teacher.encode_queries(new)
    solve_table(table, old, old_vectors, Chosen(2))  # penalty 0.3
    first = weight.detach().numpy().copy()
    counts = token_counts(table, old + new).toarray().astype(np.float64)
    gram = counts.T @ counts + 0.3 * np.eye(counts.shape[1]) * np.mean(np.sum(counts**2, axis=1))
    solve_table(table, new, new_vectors, Chosen(2), known=old)
    fresh = counts[60:]
    factor = 1 / np.linalg.norm(counts[:60] @ first, axis=1).mean()  # so that it is about as long as the new targets
    prior = factor * first
    expected = prior + np.linalg.solve(gram, fresh.T @ (new_vectors - fresh @ prior))
    np.testing.assert_allclose(weight.detach().numpy(), expected, atol=0.01 * np.abs(expected).max())
    assert not np.allclose(first, untrained)
    # The same is reached from the untrained table by all texts at once, up to the factor that is fitted to texts.
    together = make_token_table(teacher)
    solve_table(together, old + new, np.vstack([old_vectors, new_vectors]), Chosen(2))
    same = np.sum(together.encode(old + new) * table.encode(old + new), axis=1)
    assert same.min() > 0.99


@pytest.mark.parametrize("settings", [{"layers": 0, "fit": "ridge"}, {"layers": 0}, {"layers": 1}])
def test_a_student_learns_what_is_new(filled, align, settings):
    few = {"epochs": 2} if settings != {"layers": 0, "fit": "ridge"} else {}
    before = align(filled(range(200)), "first", **settings, **few)["model_path"]
    files = {file: file.read_bytes() for file in Path(before).rglob("*") if file.is_file()}
    result = align(filled(range(20, 260)), "second", update=before, **few)
    metrics = result["metrics"]
    assert metrics["update"]["of"] == before
    assert metrics["update"]["new_documents"] == 60
    assert metrics["update"]["documents"] == 200
    assert (
        metrics["update"]["about_new"]["queries"] + metrics["update"]["about_others"]["queries"] == metrics["queries"]
    )
    assert {"teacher", "before", "student"} < metrics.keys()
    assert metrics["student"]["ndcg@10"] >= metrics["before"]["ndcg@10"] - 0.05
    assert files == {file: file.read_bytes() for file in Path(before).rglob("*") if file.is_file()}
    report = Path(result["report_path"]).read_text(encoding="utf-8")
    assert "for 60 new documents" in report
    layers = json.loads((Path(before) / "metrics.json").read_text())["kept_layers"]
    assert metrics["kept_layers"] == layers
    # And once more: what came in between is known now.
    again = align(filled(range(20, 300)), "third", update=result["model_path"], **few)["metrics"]
    assert again["update"]["new_documents"] == 40


def test_nothing_that_was_held_out_is_learnt(filled, align, monkeypatch):
    from haystack_distill.align import job

    first = Path(align(filled(range(200)), "first", layers=0, fit="ridge")["model_path"])
    chosen = []
    taken = job.material_of
    monkeypatch.setattr(
        "haystack_distill.align.proof.material_of", lambda *args: chosen.append(taken(*args)) or chosen[0]
    )
    second = Path(align(filled(range(260)), "second", update=str(first))["model_path"])
    material = chosen[0]
    old_dev = set(json.loads((first / "dev" / "dev.json").read_text())["queries"].values())
    assert old_dev <= set(material.dev.values())
    assert not old_dev & {*material.texts, *material.known}
    proven = json.loads((second / "metrics.json").read_text())["queries"]
    lines = set(sentences(1200, seed=1)[:780])
    assert len(lines) - len(material.texts) - len(material.known) - len(material.dev) == proven


def test_changed_documents_are_new(filled, align):
    before = align(filled(range(200)), "first", layers=0, fit="ridge")["model_path"]
    store = filled(range(200))
    changed = filled(range(150, 200), seed=8).filter_documents()
    store.write_documents(changed, policy=DuplicatePolicy.OVERWRITE)
    assert align(store, "second", update=before)["metrics"]["update"]["new_documents"] == 50


def test_another_index_and_nothing_new_are_refused(filled, align):
    store = filled(range(200))
    before = align(store, "first", layers=0, fit="ridge")["model_path"]
    with pytest.raises(ValueError, match="aligned with all 200 documents of this index: there is nothing to update"):
        align(store, "second", update=before)
    with pytest.raises(ValueError, match="150 of the 200 documents that .* are not in this index"):
        align(filled(range(150, 300)), "second", update=before)
    with pytest.raises(ValueError, match="200 of the 200 documents"):
        align(filled(range(200), seed=5), "second", update=before)


def test_the_same_documents_by_another_encoder_are_refused(filled, align, make_encoder, teacher):
    before = align(filled(range(200)), "first", layers=0, fit="ridge")["model_path"]
    other = type(teacher).load(make_encoder("bert", seed=3), device="cpu")
    with pytest.raises(ValueError, match="have other vectors now: another encoder made them"):
        align(filled(range(220), encoder=other), "second", update=before)


@pytest.mark.parametrize("wrong", [{"layers": 0}, {"fit": "ridge"}, {"student": "other"}, {"keep": "kale"}])
def test_an_update_cuts_nothing(wrong):
    with pytest.raises(
        ValueError, match=f"MODEL stays what it is, a table or so many layers: leave `{next(iter(wrong))}` out"
    ):
        KaleSettings(update="MODEL", **wrong)


def test_a_folder_that_does_not_tell_what_it_knows(filled, align, bert, minilm):
    with pytest.raises(FileNotFoundError, match=r"does not tell which documents .*learnt.safetensors is missing"):
        align(filled(range(20)), "second", update=bert)
    mapped = align(filled(range(200)), "mapped", student=minilm)["model_path"]
    with pytest.raises(ValueError, match="with a map into the index, which is fitted anew in seconds"):
        align(filled(range(220)), "second", update=mapped)


@pytest.mark.parametrize(
    "content",
    [{"documents": np.zeros(3, np.uint64)}, {"documents": np.zeros(3), "held_out": np.zeros(3)}, b"nothing"],
)
def test_a_damaged_mark_names_its_file(filled, align, content):
    before = align(filled(range(200)), "first", layers=0, fit="ridge")["model_path"]
    marks = Path(before) / "learnt.safetensors"
    marks.write_bytes(content) if isinstance(content, bytes) else save_file(content, marks)
    with pytest.raises(ValueError, match=r"learnt.safetensors is damaged .*: align anew, without `update`"):
        align(filled(range(220)), "second", update=before)


def test_queries_and_an_update_are_refused(filled, bert, align, tmp_path):
    before = align(filled(range(200)), "first", layers=0, fit="ridge")["model_path"]
    output = str(tmp_path / "second")
    aligner = KaleAligner(document_store=filled(range(220)), teacher=bert, update=before, output=output)
    with pytest.raises(ValueError, match="learns what is new in the index: leave `queries` out"):
        aligner.run(queries="log.jsonl")
    assert not Path(output).exists()


def test_an_updated_student_serves(filled, align):
    before = align(filled(range(200)), "first", layers=0, fit="ridge")["model_path"]
    after = align(filled(range(260)), "second", update=before)["model_path"]
    old, new = (SentenceTransformer(folder, device="cpu").encode(["river bridge"]) for folder in (before, after))
    assert 0.5 < float(np.sum(old * new)) < 1
