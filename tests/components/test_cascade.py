"""Encoders in order of cost in one DistilledRetriever: real encoders, a real store, and what goes wrong."""

import asyncio
import json
import logging
import shutil
from pathlib import Path

import pytest
from haystack import Document, Pipeline, component
from haystack.components.retrievers.in_memory import InMemoryEmbeddingRetriever
from haystack_integrations.components.retrievers.qdrant import QdrantEmbeddingRetriever
from haystack_integrations.document_stores.qdrant import QdrantDocumentStore

from haystack_distill import DistilledRetriever, KaleQueryEncoder
from haystack_distill.students.token_table import make_token_table
from tests.conftest import sentences
from tests.spans import spied_on

QUERIES = {f"q{number}": text for number, text in enumerate(sentences(60, seed=21))}
QUERY = "river bridge stone winter"


@component
class Teacher:
    """An encoder behind an API, which can be down."""

    def __init__(self, inner: KaleQueryEncoder, asked: list[str], *, down: bool = False) -> None:
        self.inner, self.asked, self.down = inner, asked, down

    @component.output_types(embedding=list[float])
    def run(self, text: str) -> dict[str, list[float]]:
        self.asked.append(text)
        if self.down:
            msg = "no answer in 10 s"
            raise TimeoutError(msg)
        return self.inner.run(text=text)


@pytest.fixture
def table(teacher, tmp_path) -> str:
    folder = str(tmp_path / "table")
    make_token_table(teacher).save(folder, create_model_card=False)
    return folder


@pytest.fixture
def cascade(table, bert, store):
    def made(**changes):
        given = {"query_encoder": KaleQueryEncoder(table), "fallbacks": [KaleQueryEncoder(bert)], "top_k": 5}
        return DistilledRetriever(**{"retriever": InMemoryEmbeddingRetriever(store), **given, **changes})

    return made


def found(encoder: str, store, query: str) -> list[Document]:
    """The first ten documents."""
    embedding = KaleQueryEncoder(encoder).run(text=query)["embedding"]
    return InMemoryEmbeddingRetriever(store).run(query_embedding=embedding)["documents"]


def is_sure(written: dict, documents: list[Document]) -> bool:
    """Whether the first encoder is, by what calibration wrote."""
    return 3 * documents[0].score - 2 * documents[9].score > written["values"][0]


def test_each_query_is_answered_by_the_first_encoder_that_is_sure(cascade, table, bert, store):
    retriever = cascade()
    written = retriever.calibrate(QUERIES, max_share=0.3)
    assert written.pop("file") == str(Path(table) / "cascade.json")
    assert json.loads((Path(table) / "cascade.json").read_text()) == json.loads(json.dumps(written))
    assert (written["encoders"], written["queries"]) == (["table", Path(bert).name], 60)
    assert 0.2 < written["sent"][0] <= 0.3
    sent = 0
    for query in QUERIES.values():
        documents = retriever.run(query=query)["documents"]
        by_table = found(table, store, query)
        sure = is_sure(written, by_table)
        expected = (by_table if sure else found(bert, store, query))[:5]
        assert [one.id for one in documents] == [one.id for one in expected]
        assert {one.meta["answered_by"] for one in documents} == {"table" if sure else Path(bert).name}
        assert documents[0].meta["answer_score"] == pytest.approx(expected[0].score)
        again = asyncio.run(retriever.run_async(query=query))["documents"]
        assert [(one.id, one.meta) for one in again] == [(one.id, one.meta) for one in documents]
        sent += not sure
    assert sent / len(QUERIES) == written["sent"][0]
    assert not any("answered_by" in document.meta for document in store.filter_documents()), "the store stays as it is"


def test_ten_documents_are_looked_at_and_as_many_returned_as_were_asked_for(cascade, store):
    retriever = cascade(retriever=InMemoryEmbeddingRetriever(store, top_k=3), top_k=None)
    written = retriever.calibrate(QUERIES, max_share=0.3)
    answers = [retriever.run(query=query)["documents"] for query in QUERIES.values()]
    assert {len(documents) for documents in answers} == {3}
    sent = [documents[0].meta["answered_by"] != "table" for documents in answers]
    assert sum(sent) / len(sent) == written["sent"][0]
    assert len(retriever.run(query=QUERY, top_k=15)["documents"]) == 15


def test_thresholds_are_found_again_and_a_cascade_goes_through_yaml(cascade):
    pipeline = Pipeline()
    pipeline.add_component("retriever", cascade())
    pipeline.get_component("retriever").calibrate(QUERIES, max_share=0.3)
    again = Pipeline.loads(pipeline.dumps())
    assert again.to_dict() == pipeline.to_dict()
    assert isinstance(again.get_component("retriever").fallbacks[0], KaleQueryEncoder)
    again.get_component("retriever")._cascade.load()


def test_three_encoders_and_a_file_of_ones_own(cascade, bert, tmp_path):
    middle = str(tmp_path / "middle")
    shutil.copytree(bert, middle)
    file = tmp_path / "thresholds.json"
    retriever = cascade(fallbacks=[KaleQueryEncoder(middle), KaleQueryEncoder(bert)], thresholds=str(file))
    written = retriever.calibrate(QUERIES, max_share=0.3)
    assert len(json.loads(file.read_text())["values"]) == 2
    assert written["sent"][1] <= written["sent"][0]
    for query in QUERIES.values():
        retriever.run(query=query)
    assert sum(retriever._cascade.answered.values()) == 60
    assert retriever._cascade.answered[Path(bert).name] == round(60 * written["sent"][1])


def test_a_store_of_distances_sends_on_what_is_far(table, bert, teacher, passages):
    store = QdrantDocumentStore(":memory:", embedding_dim=32, similarity="l2")
    vectors = teacher.encode_documents(list(passages.values())).tolist()
    store.write_documents(
        [Document(content=text, embedding=vector) for text, vector in zip(passages.values(), vectors, strict=True)]
    )
    retriever = DistilledRetriever(
        retriever=QdrantEmbeddingRetriever(document_store=store),
        query_encoder=KaleQueryEncoder(table),
        fallbacks=[KaleQueryEncoder(bert)],
    )
    written = retriever.calibrate(QUERIES, max_share=0.3)
    assert written["distances"]
    for query in QUERIES.values():
        retriever.run(query=query)
    assert retriever._cascade.answered[Path(bert).name] == round(60 * written["sent"][0])


def test_a_teacher_that_fails_leaves_the_students_answer_marked(cascade, table, bert, store, caplog):
    asked = []
    retriever = cascade(fallbacks=[api := Teacher(KaleQueryEncoder(bert), asked)])
    written = retriever.calibrate(QUERIES, max_share=0.5)
    assert len(asked) == 60
    api.down = True
    query = next(text for text in QUERIES.values() if not is_sure(written, found(table, store, text)))
    for documents in (
        retriever.run(query=query)["documents"],
        asyncio.run(retriever.run_async(query=query))["documents"],
    ):
        assert [one.id for one in documents] == [one.id for one in found(table, store, query)[:5]]
        assert documents[0].meta["answered_by"] == "table"
        assert documents[0].meta["answer_failed"] == ["Teacher"]
    assert "Teacher failed (TimeoutError: no answer in 10 s)" in caplog.text


def test_what_one_encoder_cannot_embed_the_next_one_can_and_if_none_can_it_is_said(cascade, table, bert, store):
    first, last = Teacher(KaleQueryEncoder(table), []), Teacher(KaleQueryEncoder(bert), [])
    retriever = cascade(query_encoder=first, fallbacks=[last], thresholds=str(Path(table) / "ours.json"))
    assert retriever.calibrate(QUERIES, max_share=0.5)["encoders"] == ["Teacher (1)", "Teacher (2)"]
    first.down = True
    documents = retriever.run(query=QUERY)["documents"]
    assert [one.id for one in documents] == [one.id for one in found(bert, store, QUERY)[:5]]
    assert documents[0].meta["answer_failed"] == ["Teacher (1)"]
    last.down = True
    with pytest.raises(TimeoutError):
        retriever.run(query=QUERY)
    with pytest.raises(TimeoutError):
        asyncio.run(retriever.run_async(query=QUERY))


def test_who_answered_is_told_to_the_tracer(cascade):
    retriever = cascade()
    retriever.calibrate(QUERIES, max_share=0.3)
    pipeline = Pipeline()
    pipeline.add_component("retriever", retriever)
    with spied_on() as spans:
        pipeline.run({"retriever": {"query": QUERY}})
    (component,) = (one for one in spans if one.name == "haystack.component.run")
    assert component.tags["haystack_distill.answered_by"] in retriever._cascade.names
    assert isinstance(component.tags["haystack_distill.answer_score"], float)


def test_when_queries_change_it_is_said_once_and_what_to_do(cascade, caplog):
    retriever = cascade()
    written = retriever.calibrate(QUERIES, max_share=0.1)
    usual = list(QUERIES.values()) * 2
    with caplog.at_level(logging.WARNING):
        for query in usual:
            retriever.run(query=query)
        assert "queries or documents have changed" not in caplog.text
        low = [Document(content="x", score=written["values"][0] - 0.1)]
        for _ in range(200):
            retriever._cascade.suffices(0, low)
    assert caplog.text.count("queries or documents have changed. Align it again") == 1


def test_encoders_of_different_indexes_are_refused(cascade, table, bert, tmp_path):
    other = tmp_path / "other"
    shutil.copytree(bert, other)
    for folder, fingerprint in ((table, "a"), (other, "b")):
        (Path(folder) / "haystack_distill.json").write_text(json.dumps({"index": {"fingerprint": fingerprint}}))
    retriever = cascade(fallbacks=[KaleQueryEncoder(str(other))])
    with pytest.raises(ValueError, match="table, other were made for different indexes"):
        retriever.calibrate(QUERIES, max_share=0.3)
    with pytest.raises(ValueError, match="made for different indexes"):
        retriever.run(query=QUERY)


def test_a_cascade_that_was_not_calibrated_says_how(cascade):
    for _ in range(2):
        with pytest.raises(FileNotFoundError, match="run `haystack-distill calibrate`"):
            cascade().run(query=QUERY)
        with pytest.raises(FileNotFoundError, match="run `haystack-distill calibrate`"):
            asyncio.run(cascade().run_async(query=QUERY))


def test_thresholds_of_other_encoders_and_damaged_ones_are_refused(cascade, table, bert, tmp_path):
    cascade().calibrate(QUERIES, max_share=0.3)
    shutil.copytree(bert, tmp_path / "another")
    with pytest.raises(ValueError, match="was calibrated for .* and the encoders are .*another.*: calibrate again"):
        cascade(fallbacks=[KaleQueryEncoder(str(tmp_path / "another"))]).run(query=QUERY)
    old = json.loads((Path(table) / "cascade.json").read_text())
    (Path(table) / "cascade.json").write_text(json.dumps({name: old[name] for name in old if name != "signal"}))
    with pytest.raises(ValueError, match="signal.*calibrate the cascade again"):
        cascade().run(query=QUERY)
    (Path(table) / "cascade.json").write_text('{"encoders": []')
    with pytest.raises(ValueError, match="is damaged"):
        cascade().run(query=QUERY)


def test_too_few_queries_and_nothing_to_calibrate(cascade, table):
    some = dict(list(QUERIES.items())[:29])
    with pytest.raises(ValueError, match="29 queries are too few"):
        cascade().calibrate(some, max_share=0.3)
    assert not (Path(table) / "cascade.json").exists()
    with pytest.raises(ValueError, match="name the encoders that are asked next as `fallbacks`"):
        cascade(fallbacks=None).calibrate(QUERIES, max_share=0.3)
