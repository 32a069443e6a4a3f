"""What Haystack's tracer sees of a retrieval: encoding and search apart, and who did them."""

import asyncio
from pathlib import Path

import pytest
from haystack import Pipeline
from haystack.components.retrievers.in_memory import InMemoryBM25Retriever, InMemoryEmbeddingRetriever

from haystack_distill import DistilledHybridRetriever, DistilledRetriever, KaleQueryEncoder
from haystack_distill.files.folders import write_json
from haystack_distill.fusion.model import FILE, Fusion, Retriever
from tests.components.test_cascade import Teacher
from tests.conftest import sentences
from tests.spans import own, spied_on

QUERIES = {f"q{number}": text for number, text in enumerate(sentences(40, seed=21))}
PARENT = "haystack.component.run"


def alone(retriever) -> Pipeline:
    pipeline = Pipeline()
    pipeline.add_component("retriever", retriever)
    return pipeline


def run(pipeline: Pipeline, query: str, *, asynchronous: bool):
    given = {"retriever": {"query": query}}
    with spied_on() as spans:
        asyncio.run(pipeline.run_async(given)) if asynchronous else pipeline.run(given)
    return own(spans)


@pytest.fixture
def dense(bert, store):
    return DistilledRetriever(retriever=InMemoryEmbeddingRetriever(store), query_encoder=KaleQueryEncoder(bert))


@pytest.mark.parametrize("asynchronous", [False, True])
def test_encoding_and_search_are_two_spans_below_the_component(dense, bert, asynchronous):
    name = Path(bert).name
    spans = run(alone(dense), QUERIES["q0"], asynchronous=asynchronous)
    assert spans == [("encode", name, PARENT), ("search", name, PARENT)]


@pytest.mark.parametrize("asynchronous", [False, True])
def test_each_encoder_of_a_cascade_has_its_spans_and_one_that_fails_no_search(
    table, bert, store, asynchronous, monkeypatch
):
    if asynchronous:  # the store's own way, instead of a thread around it all
        monkeypatch.setattr("haystack_integrations.components.distill.distilled_retriever.is_embedded", lambda _: False)
    first = Teacher(KaleQueryEncoder(str(table)), [])
    retriever = DistilledRetriever(
        retriever=InMemoryEmbeddingRetriever(store),
        query_encoder=first,
        fallbacks=[KaleQueryEncoder(bert)],
        thresholds=str(table / "ours.json"),
    )
    pipeline = alone(retriever)
    sent = retriever.calibrate(QUERIES, max_share=0.3)["values"][0]
    ours, theirs = retriever._cascade.names
    both = [(kind, name, PARENT) for name in (ours, theirs) for kind in ("encode", "search")]
    seen = set()
    for query in QUERIES.values():
        spans = run(pipeline, query, asynchronous=asynchronous)
        scores = [document.score for document in retriever._first(first, query)]
        assert spans == (both if 3 * scores[0] - 2 * scores[9] <= sent else both[:2])
        seen.add(len(spans))
    assert seen == {2, 4}
    first.down = True
    assert run(pipeline, QUERIES["q0"], asynchronous=asynchronous) == [both[0], *both[2:]]


@pytest.mark.parametrize("asynchronous", [False, True])
def test_each_retriever_of_a_hybrid_is_a_span(dense, bert, store, tmp_path, asynchronous):
    retrievers = {"keyword": InMemoryBM25Retriever(store), "dense": dense}
    ends = {"first": (1.0, 1.0), "last": (1.0, 1.0), "low": 0.0, "high": 9.0}
    fitted = tuple(Retriever(name, 0.5, falls=True, **ends) for name in retrievers)
    (tmp_path / "fusion").mkdir()
    write_json(tmp_path / "fusion" / FILE, Fusion("rank", 10, fitted).content())
    hybrid = DistilledHybridRetriever(retrievers=retrievers, fusion=str(tmp_path / "fusion"))
    spans = run(alone(hybrid), QUERIES["q0"], asynchronous=asynchronous)
    inside, name = "haystack_distill.retrieve", Path(bert).name
    assert sorted(spans) == sorted(
        [
            ("retrieve", "keyword", PARENT),
            ("retrieve", "dense", PARENT),
            ("encode", name, inside),
            ("search", name, inside),
        ]
    )
