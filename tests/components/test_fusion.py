"""A hybrid is fitted to its teacher, over real retrievers, and joined by the result, by both components."""

import asyncio
import json
from copy import copy
from pathlib import Path

import pytest
from haystack import Document, Pipeline, component
from haystack.components.joiners import DocumentJoiner
from haystack.components.retrievers.in_memory import InMemoryBM25Retriever, InMemoryEmbeddingRetriever
from haystack.document_stores.in_memory import InMemoryDocumentStore

from haystack_distill import (
    DistilledHybridRetriever,
    DistilledJoiner,
    DistilledRetriever,
    FusionDistiller,
    KaleQueryEncoder,
)
from haystack_distill.data.training_set import TrainingSet
from haystack_distill.fusion.model import Fusion
from tests.conftest import write_beir

QUERY = "river bridge stone"


@component
class WordsRanker:
    """A teacher that counts common words; it can be made to die."""

    calls = 0

    def __init__(self, dies_at: int = 0) -> None:
        self.dies_at = dies_at

    @component.output_types(documents=list[Document])
    def run(self, query: str, documents: list[Document]) -> dict[str, list[Document]]:
        type(self).calls += 1
        if self.dies_at and type(self).calls > self.dies_at:
            raise KeyboardInterrupt
        words = set(query.split())
        scored = [
            Document(id=d.id, content=d.content, score=float(len(words & set(d.content.split())))) for d in documents
        ]
        return {"documents": sorted(scored, key=lambda document: -document.score)}


@component
class Fixed:
    """A retriever that finds the same for every query."""

    def __init__(self, key: str, text: str, score: float | None = 1.0) -> None:
        self.key, self.text, self.score = key, text, score

    @component.output_types(documents=list[Document])
    def run(self, query: str, top_k: int = 10) -> dict[str, list[Document]]:
        return {"documents": [Document(id=self.key, content=self.text, score=self.score)][: top_k if query else 0]}


@pytest.fixture
def retrievers(store, bert):
    dense = DistilledRetriever(
        retriever=InMemoryEmbeddingRetriever(store), query_encoder=KaleQueryEncoder(bert, backend="torch")
    )
    return {"keyword": InMemoryBM25Retriever(store), "dense": dense}


@pytest.fixture
def distil(retrievers, place):
    """Fit on judgments, or on what a scorer thinks."""

    def run(queries, output="hybrid", judged=None, given=None, **settings):
        distiller = FusionDistiller(
            retrievers=given or retrievers, output=output, top_k=30, progress_bar=False, **settings
        )
        assert Path.cwd() == place
        return distiller.run(queries=str(queries), judged=judged and str(judged))

    return run


@pytest.fixture
def questions(passages, place) -> Path:
    file = place / "questions.jsonl"
    rows = [{"_id": f"q{n}", "text": text.split(". ")[0]} for n, text in enumerate(list(passages.values())[:40])]
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return file


def test_judgments_fit_a_hybrid_that_is_proven_on_test(distil, beir, passages):
    metrics = distil(beir, judged=beir)["metrics"]
    assert {"keyword", "dense", "rrf", "dbsf", "fitted"} <= metrics.keys()
    assert metrics["queries"] == 20
    assert metrics["labels"] <= 30  # of train; none of test
    assert metrics["judged_by"] == "judged test queries"
    # Queries are sentences of their documents, which words find and a random encoder does not.
    assert metrics["weights"]["keyword"] > 0.9
    assert metrics["fitted"]["ndcg@10"] >= metrics["rrf"]["ndcg@10"]
    assert metrics["fitted"]["ndcg@10"] == pytest.approx(metrics["keyword"]["ndcg@10"], abs=0.02)
    ends, alone = dict(metrics["curve"]), [metrics[name]["ndcg@10"] for name in ("keyword", "dense")]
    assert [ends[0.0], ends[1.0]] == pytest.approx(alone, abs=0.02)
    page = Path("hybrid/report.html").read_text()
    assert "A hybrid whose weights the teacher set" in page
    assert next(text for text in passages.values()).split(". ")[0] in page or "Nowhere." in page


def test_a_reader_fits_without_judgments_and_its_labels_are_kept(distil, questions):
    result = distil(questions, scorer=WordsRanker())
    labels = list(TrainingSet.open("hybrid/training_set").labelled())
    assert len(labels) == 40
    assert {len(row.document_ids) for row in labels} <= set(range(4, 9))
    assert all(row.lists.keys() == {"keyword", "dense"} for row in labels)
    assert result["metrics"]["judged_by"].startswith("the labelled queries, each left out in turn")
    assert result["metrics"]["provenance"]["teacher"]["ranker"]["type"].endswith("WordsRanker")


def test_no_label_is_lost_by_a_kill(distil, questions, monkeypatch):
    WordsRanker.calls = 0
    with pytest.raises(KeyboardInterrupt):
        distil(questions, scorer=WordsRanker(dies_at=25))
    assert not Path("hybrid").exists()
    monkeypatch.setattr(WordsRanker, "calls", -1000)  # the same teacher, which lives now
    distil(questions, scorer=WordsRanker(dies_at=25))
    assert WordsRanker.calls <= -1000 + 40 - 20, "rows were labelled again"
    assert len(list(TrainingSet.open("hybrid/training_set").labelled())) == 40
    distil(questions, output="other", scorer=WordsRanker())
    assert Fusion.load("other") == Fusion.load("hybrid")


def test_an_unfinished_run_with_other_settings_is_refused(distil, questions):
    WordsRanker.calls = 0
    with pytest.raises(KeyboardInterrupt):
        distil(questions, scorer=WordsRanker(dies_at=25))
    with pytest.raises(ValueError, match="other settings"):
        distil(questions, scorer=WordsRanker(), candidates=3)


def test_an_output_that_is_there_is_not_touched(distil, beir):
    Path("hybrid").mkdir()
    with pytest.raises(FileExistsError, match="exists already"):
        distil(beir)


def test_what_test_asks_is_not_learnt(distil, beir, passages):
    queries = {"a": "river bridge", **{f"t{n}": passages[f"d{n}"].split(". ")[0] for n in range(11)}}
    asked = write_beir(beir.parent / "asked", passages, queries, {"test": dict.fromkeys(queries, "d1")})
    metrics = distil(beir, judged=asked)["metrics"]
    assert metrics["labels"] <= 30 - 11
    assert metrics["queries"] == 12
    with pytest.raises(ValueError, match="0 questions of .* have judgments and are not asked in test"):
        distil(beir, output="other", judged=beir, split="test")


@pytest.fixture
def fitted(distil, beir):
    return distil(beir)["model_path"]


def test_a_hybrid_retriever_joins_as_its_fusion_says(fitted, retrievers):
    fusion = Fusion.load(fitted)
    lists = {
        name: {d.id: d.score for d in one.run(query=QUERY, top_k=30)["documents"]} for name, one in retrievers.items()
    }
    expected = fusion.join(lists)
    hybrid = DistilledHybridRetriever(retrievers=retrievers, fusion=fitted, top_k=5)
    found = hybrid.run(query=QUERY)["documents"]
    assert [(d.id, pytest.approx(d.score)) for d in found] == list(expected.items())[:5]
    for document in found:
        own = {name: scores[document.id] for name, scores in lists.items() if document.id in scores}
        assert document.meta["retriever_scores"] == pytest.approx(own)
        assert document.content
    assert len(hybrid.run(query=QUERY, top_k=2)["documents"]) == 2
    with pytest.raises(ValueError, match="top_k must be at least 1, not 0"):
        hybrid.run(query=QUERY, top_k=0)
    again = asyncio.run(hybrid.run_async(query=QUERY))["documents"]
    assert [d.id for d in again] == [d.id for d in found]
    hybrid.close()
    assert [d.id for d in hybrid.run(query=QUERY)["documents"]] == [d.id for d in found]


@pytest.mark.parametrize("run", [Pipeline.run, lambda pipeline, data: asyncio.run(pipeline.run_async(data))])
def test_a_joiner_takes_the_place_of_haystacks(fitted, retrievers, run):
    def ask(joiner):
        pipeline = Pipeline()
        for name, one in {**retrievers, "joiner": joiner}.items():
            pipeline.add_component(name, copy(one))
        pipeline.connect("keyword.documents", "joiner.documents")
        pipeline.connect("dense.documents", "joiner.documents")
        return run(pipeline, {name: {"query": QUERY, "top_k": 30} for name in retrievers})["joiner"]["documents"]

    hybrid = DistilledHybridRetriever(retrievers=retrievers, fusion=fitted, top_k=10)
    expected = [document.id for document in hybrid.run(query=QUERY)["documents"]]
    assert [document.id for document in ask(DistilledJoiner(fitted, top_k=10))] == expected
    assert {document.id for document in ask(DocumentJoiner("reciprocal_rank_fusion", top_k=60))} >= set(expected)


def test_a_joiner_knows_lists_in_any_order_and_keeps_what_documents_hold(fitted, retrievers):
    lists = [one.run(query=QUERY, top_k=30)["documents"] for one in retrievers.values()]
    joiner = DistilledJoiner(fitted)
    found = joiner.run(documents=lists)["documents"]
    assert [d.id for d in joiner.run(documents=lists[::-1])["documents"]] == [d.id for d in found]
    stored = {document.id: document for document in lists[0] + lists[1]}
    assert {d.id for d in found} == stored.keys()
    for document in found:
        assert document.content == stored[document.id].content
        assert stored[document.id].meta.items() <= document.meta.items()
    assert joiner.run(documents=[[], []]) == {"documents": []}
    assert len(joiner.run(documents=[[], lists[1][:3]])["documents"]) == 3


def test_a_joiner_says_what_it_cannot_join(fitted, retrievers, place):
    lists = [one.run(query=QUERY, top_k=30)["documents"] for one in retrievers.values()]
    joiner = DistilledJoiner(fitted)
    with pytest.raises(ValueError, match=r"fitted for keyword .* can't join 3 lists"):
        joiner.run(documents=[*lists, lists[0]])
    with pytest.raises(ValueError, match="connect the retrievers that it was fitted with"):
        joiner.run(documents=[[Document(id="x", content="x", score=1e6)]])
    with pytest.raises(ValueError, match="has no score"):
        joiner.run(documents=[[Document(id="x", content="x")]])
    with pytest.raises(ValueError, match="top_k must be at least 1"):
        joiner.run(documents=lists, top_k=0)
    alike = json.loads((Path(fitted) / "fusion.json").read_text()) | {"told_apart": False}
    (place / "alike").mkdir()
    (place / "alike" / "fusion.json").write_text(json.dumps(alike))
    with pytest.raises(ValueError, match="use DistilledHybridRetriever"):
        DistilledJoiner(str(place / "alike")).warm_up()


def test_a_hybrid_of_other_retrievers_is_refused(fitted, retrievers):
    other = {"words": retrievers["keyword"], "dense": retrievers["dense"]}
    with pytest.raises(ValueError, match="fitted for keyword, dense, and the retrievers are words, dense"):
        DistilledHybridRetriever(retrievers=other, fusion=fitted).run(query=QUERY)
    with pytest.raises(ValueError, match="query is empty"):
        DistilledHybridRetriever(retrievers=retrievers, fusion=fitted).run(query=" ")


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (lambda good: {"keyword": good["keyword"]}, "at least two retrievers, and 1 came"),
        (lambda good: {"rrf": good["keyword"], "dense": good["dense"]}, "'rrf' can't name a retriever"),
        (lambda good: {"keyword": good["keyword"], "a b": good["dense"]}, "'a b' can't name a retriever"),
        (lambda good: {"keyword": good["keyword"], "dense": good["dense"].retriever}, "takes no query text"),
    ],
)
def test_what_is_no_set_of_text_retrievers_is_refused_at_once(retrievers, given, said):
    with pytest.raises(ValueError, match=said):
        FusionDistiller(retrievers=given(retrievers), output="o")


def test_bad_lists_are_refused_with_the_retrievers_name(distil, beir, retrievers, passages):
    empty = {**retrievers, "dense": InMemoryBM25Retriever(InMemoryDocumentStore())}
    with pytest.raises(ValueError, match="'dense' found nothing for any"):
        distil(beir, given=empty)
    without = {**retrievers, "dense": Fixed("d1", passages["d1"], None)}
    with pytest.raises(ValueError, match="dense returned the document 'd1' without a score"):
        distil(beir, output="b", given=without)
    other = {**retrievers, "dense": Fixed("d1", "another text")}
    with pytest.raises(ValueError, match="the id 'd1' and different texts"):
        distil(beir, output="c", given=other)
    apart = {**retrievers, "dense": Fixed("x", "another text")}
    with pytest.raises(ValueError, match="found no document that another one found too"):
        distil(beir, output="d", given=apart)
