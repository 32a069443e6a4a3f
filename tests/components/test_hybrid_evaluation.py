"""Encoders are measured in a hybrid as Haystack's retrievers and joiner make it, and what does not fit is refused."""

import json
from math import log2
from pathlib import Path

import numpy as np
import pytest
from haystack import Document, component
from haystack.components.joiners import DocumentJoiner
from haystack.components.retrievers.in_memory import InMemoryBM25Retriever, InMemoryEmbeddingRetriever
from haystack.document_stores.in_memory import InMemoryDocumentStore

from haystack_distill import KaleQueryEncoder, RetrievalEvaluator
from haystack_distill.fusion.model import Fusion, Retriever
from tests.conftest import write_beir

TOP_K, KEYWORD = 25, 0.35


def write_fusion(folder: Path, **of_dense) -> str:
    seen = {"falls": True, "first": (1.0, 1.0), "last": (1.0, 1.0), "low": 0.0, "high": 20.0}
    keyword = Retriever("keyword", KEYWORD, **seen)
    dense = Retriever("dense", 1 - KEYWORD, **{**seen, **of_dense})
    folder.mkdir()
    (folder / "fusion.json").write_text(json.dumps(Fusion("min-max", TOP_K, (keyword, dense)).content()))
    return str(folder)


@pytest.fixture
def questions(passages, tmp_path) -> Path:
    """Three words of a passage each, which neither words nor a random encoder always find."""
    queries = {f"q{n}": " ".join(text.split()[n % 5 : n % 5 + 9 : 4]) for n, text in enumerate(passages.values())}
    return write_beir(tmp_path / "asked", passages, queries, {"test": {f"q{n}": f"d{n}" for n in range(40)}})


@pytest.fixture
def evaluate(store, bert, table, place):
    """Evaluate the table beside the encoder of the store."""

    def run(queries, **settings):
        given = {"keyword": InMemoryBM25Retriever(store)}
        defaults = {"students": {"a table": str(table)}, "output": "e", "retrievers": given}
        evaluator = RetrievalEvaluator(document_store=store, teacher=bert, **{**defaults, **settings})
        assert Path.cwd() == place
        return evaluator.run(queries=str(queries))["metrics"]

    return run


def scaled(documents: list[Document]) -> dict[str, float]:
    scores = np.array([document.score for document in documents])
    values = (scores - scores.min()) / (scores.max() - scores.min())
    return dict(zip((document.id for document in documents), values.tolist(), strict=True))


def found_by_haystack(store, encoder: str, query: str) -> dict[str, list[str]]:
    """The rankings of the documents for a query: by words, by vectors, and of both."""
    embedding = KaleQueryEncoder(encoder, backend="torch").run(query)["embedding"]
    words = InMemoryBM25Retriever(store).run(query=query, top_k=TOP_K)["documents"]
    dense = InMemoryEmbeddingRetriever(store).run(query_embedding=embedding, top_k=TOP_K)["documents"]
    joiner = DocumentJoiner("reciprocal_rank_fusion")
    left, right = scaled(words), scaled(dense)
    fused = {key: KEYWORD * left.get(key, 0) + (1 - KEYWORD) * right.get(key, 0) for key in left | right}
    return {
        "keyword": [document.id for document in words],
        "alone": [document.id for document in dense],
        "rrf": [document.id for document in joiner.run([words, dense])["documents"]],
        "fitted": sorted(fused, key=lambda key: -fused[key]),
    }


def ndcg(ranked: list[str], relevant: str) -> float:
    return 1 / log2(ranked.index(relevant) + 2) if relevant in ranked[:10] else 0.0


def test_every_figure_is_that_of_haystacks_own_parts(evaluate, questions, store, bert, table):
    queries = dict(json.loads(line).values() for line in (questions / "queries.jsonl").read_text().splitlines())
    expected = {}
    for name, encoder in (("teacher", bert), ("a table", str(table))):
        for n in range(40):
            for way, ranked in found_by_haystack(store, encoder, queries[f"q{n}"]).items():
                key = ("alone", "keyword") if way == "keyword" else (way, name)
                expected.setdefault(key, {})[n] = ndcg(ranked, f"d{n}")
    metrics = evaluate(questions, fusion=write_fusion(Path("hybrid")))
    hybrids = metrics["hybrids"]
    assert list(hybrids) == ["alone", "rrf", "dbsf", "fitted"]
    assert hybrids["alone"].keys() == {"keyword", "teacher", "a table"}
    for (way, name), values in expected.items():
        found = hybrids[way][name]
        assert found["ndcg@10"] == pytest.approx(np.mean(list(values.values()))), (way, name)
        assert found["intervals"]["ndcg@10"][0] <= found["ndcg@10"] <= found["intervals"]["ndcg@10"][1]
        if name == "teacher":
            assert "significance" not in found
            continue
        teacher = expected[way, "teacher"]
        differences = [values[n] - teacher[n] for n in range(40)]
        assert found["significance"]["difference"] == pytest.approx(np.mean(differences)), (way, name)
        assert found["share_of_teacher"] == pytest.approx(sum(values.values()) / sum(teacher.values()))
    assert len({round(hybrids[way]["teacher"]["ndcg@10"], 3) for way in ("alone", "rrf", "fitted")}) == 3
    # What is said of the encoders alone stays what it was.
    assert metrics["a table"]["ndcg@10"] == hybrids["alone"]["a table"]["ndcg@10"]
    page = Path("e/report.html").read_text()
    for label in ("keyword, alone", "teacher, rrf", "a table, fitted"):
        assert f"<td>{label}</td>" in page
    assert "hybrid: weights keyword 0.35, dense 0.65, scale min-max, 25 documents of each retriever" in page


def test_without_a_fusion_nothing_is_joined(evaluate, questions):
    metrics = evaluate(questions, retrievers=None)
    assert "hybrids" not in metrics
    assert "In a hybrid" not in Path("e/report.html").read_text()


def test_a_place_fitted_for_distances_takes_the_same_order(evaluate, questions):
    falling = evaluate(questions, fusion=write_fusion(Path("falling")))["hybrids"]
    rising = evaluate(questions, fusion=write_fusion(Path("rising"), falls=False), output="f")["hybrids"]
    for way in ("alone", "rrf", "fitted"):
        assert rising[way]["a table"]["ndcg@10"] == falling[way]["a table"]["ndcg@10"]


def test_a_query_that_is_a_document_does_not_find_itself(evaluate, passages, place):
    """Words would find it first, and the judged document second at best."""
    documents = {**passages, "d1": passages["d0"] + " " + passages["d1"]}
    asked = write_beir(place / "own", documents, {"d0": passages["d0"]}, {"test": {"d0": "d1"}})
    store = InMemoryDocumentStore()
    store.write_documents([Document(id=key, content=text) for key, text in documents.items()])
    given = {"keyword": InMemoryBM25Retriever(store)}
    metrics = evaluate(asked, retrievers=given, fusion=write_fusion(place / "hybrid"))
    assert metrics["hybrids"]["alone"]["keyword"]["mrr@10"] == 1


@component
class Fixed:
    """A keyword retriever that finds the same for every query."""

    def __init__(self, *found: tuple[str, float | None]) -> None:
        self.found = found

    @component.output_types(documents=list[Document])
    def run(self, query: str) -> dict[str, list[Document]]:
        return {"documents": [Document(id=key, content=query, score=score) for key, score in self.found]}


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"teacher": Fixed()}, "can't be called 'teacher', which is the encoder of the index"),
        ({"words": Fixed()}, "hybrid was fitted for keyword, dense, and here an encoder is joined with words: take"),
        ({"keyword": Fixed(), "dense": Fixed()}, "an encoder is joined with keyword, dense: take a fusion"),
        ({"keyword": Fixed()}, "'keyword' found nothing for any of 40 queries"),
        ({"keyword": Fixed(("other", 1.0))}, "'keyword' found no document of the index, in 40 queries"),
        ({"keyword": Fixed(("d1", None))}, "keyword returned the document 'd1' without a score that is a number"),
        ({"keyword": Fixed(("d1", 1.0), ("d2", 2.0))}, "'keyword' rise along its lists, and fell when the fusion was"),
    ],
)
def test_retrievers_that_the_fusion_was_not_fitted_for(evaluate, questions, given, said):
    with pytest.raises(ValueError, match=said):
        evaluate(questions, retrievers=given, fusion=write_fusion(Path("hybrid")))
    assert not Path("e").exists()


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"retrievers": None, "fusion": "hybrid"}, "needs both the folder of its fusion and the retrievers"),
        ({"retrievers": {"keyword": Fixed()}}, "needs both the folder of its fusion and the retrievers"),
        ({"retrievers": {"a b": Fixed()}, "fusion": "hybrid"}, "'a b' can't name a retriever"),
        ({"students": {"keyword": "x"}, "fusion": "hybrid"}, "none of them hybrids, keyword, queries"),
    ],
)
def test_what_does_not_go_together_is_known_at_once(evaluate, settings, said):
    with pytest.raises(ValueError, match=said):
        evaluate("nowhere", **settings)


def test_a_fusion_that_is_none_is_known_before_the_index_is_read(evaluate, questions, monkeypatch):
    def unread(*_):
        raise AssertionError

    monkeypatch.setattr("haystack_integrations.components.distill.retrieval_evaluator.index_of", unread)
    with pytest.raises(FileNotFoundError, match="asked holds no fitted fusion"):
        evaluate(questions, fusion=str(questions))
