"""What a switch to a new index refuses; the old one goes on serving."""

import pytest
from haystack import Document
from haystack.document_stores.in_memory import InMemoryDocumentStore

from haystack_distill import CurrentRetriever, IndexSwitcher
from haystack_distill.evaluation.pointer import Serving, read_pointer, write_pointer
from haystack_distill.files.runs import alone
from haystack_integrations.components.distill.parts import reembedding
from tests.indexes import FAISS, QDRANT, RETRIEVERS, close, make_store, switcher


def test_a_new_index_that_holds_something_else_is_refused_and_left_alone(place, documents, bert, other, beir):
    one = switcher("faiss", place, documents, bert, other)
    one.new_document_store.write_documents([Document(id="x", content="mine")])
    with pytest.raises(ValueError, match="holds 1 documents that no unfinished run"):
        one.run(queries=str(beir))
    assert list(one.new_document_store.documents) == ["x"]
    assert not (place / "current.json").exists()


def test_a_half_made_index_is_not_gone_on_with_by_another_encoder(place, documents, bert, other, beir, monkeypatch):
    one = switcher("faiss", place, documents, bert, other)

    def half(_, target, *__, **___):
        target.write_documents(documents[:30])
        raise ZeroDivisionError

    monkeypatch.setattr("haystack_integrations.components.distill.parts.reindexing.reembed", half)
    with pytest.raises(ZeroDivisionError):
        one.run(queries=str(beir))
    one.model = bert
    with pytest.raises(ValueError, match="holds 30 documents of a run with other settings, .*name an empty index"):
        one.run(queries=str(beir))
    assert len(one.new_document_store.documents) == 30
    assert read_pointer(place / "current.json").query_model == bert


def test_what_would_serve_nothing_or_something_else_is_refused(place, documents, bert, other, beir):
    old = make_store("faiss", place / "old", documents)
    common = {"document_store": old, "teacher": bert, "model": other, "pointer": "current.json"}
    for store in (InMemoryDocumentStore(), FAISS.FAISSDocumentStore(), QDRANT.QdrantDocumentStore(":memory:")):
        with pytest.raises(ValueError, match="keeps documents in memory only"):
            IndexSwitcher(**common, new_document_store=store)
    with pytest.raises(ValueError, match="is the index that serves"):
        IndexSwitcher(**common, new_document_store=make_store("faiss", place / "old"))
    one = IndexSwitcher(**common, new_document_store=make_store("faiss", place / "new"))
    write_pointer(place / "current.json", Serving("elsewhere", bert, old.to_dict()))
    with pytest.raises(ValueError, match="its query_model differ"):
        one.run(queries=str(beir))
    (place / "current.json").write_text("{")
    with pytest.raises(ValueError, match="does not say which index serves"):
        one.run(queries=str(beir))
    (place / "current.json").write_text('{"version": 9}')
    with pytest.raises(ValueError, match="of version 9"):
        one.run(queries=str(beir))
    with pytest.raises(FileNotFoundError, match=r"pointer nowhere.json is missing"):
        CurrentRetriever(pointer="nowhere.json", retriever=RETRIEVERS["faiss"]).warm_up()


def test_an_encoder_of_another_index_is_refused(place, documents, bert, other, beir):
    """The comparison would be with something that nobody uses. Nothing is left behind that hinders the right one."""
    with pytest.raises(ValueError, match="not made by this encoder"):
        switcher("faiss", place, documents, other, other).run(queries=str(beir))
    assert not (place / "current.json").exists()
    assert not (place / "new.faiss").exists()
    assert switcher("faiss", place, [], bert, other, max_loss=1.0).run(queries=str(beir))["switched"]


@pytest.mark.parametrize("side", ["document_store", "new_document_store"])
def test_stores_that_empty_themselves_are_refused(side, place, bert, other):
    """The pointer would hand the setting on, and the first query would delete the index."""
    stores = {name: make_store("qdrant", place / name) for name in ("document_store", "new_document_store")}
    stores[side].recreate_index = True
    with pytest.raises(ValueError, match="recreate_index=True"):
        IndexSwitcher(**stores, teacher=bert, model=other, pointer="p.json")
    made = {"type": f"{QDRANT.__name__}.document_store.QdrantDocumentStore"}
    made["init_parameters"] = {"path": str(place / "x"), "recreate_index": True}
    with pytest.raises(ValueError, match="recreate_index=True"):
        reembedding.open_store(Serving(bert, bert, made))
    close(*stores.values())


def test_settings_that_a_pointer_would_lose_are_refused(place, bert, other):
    stores = {name: make_store("faiss", place / name) for name in ("document_store", "new_document_store")}
    for setting in ({"query_prefix": "query: "}, {"truncate_dim": 16}):
        with pytest.raises(ValueError, match=f"`{next(iter(setting))}` would be lost to what serves"):
            IndexSwitcher(**stores, teacher=bert, model=other, pointer="p.json", **setting)
        IndexSwitcher(**stores, teacher=bert, model=other, pointer="p.json", query_model=bert, **setting)


def test_two_runs_do_not_work_on_one_pointer(place, documents, bert, other, beir):
    one = switcher("faiss", place, documents, bert, other)
    with alone(place / ".current.json.lock", ""), pytest.raises(BlockingIOError, match="Another run works on"):
        one.run(queries=str(beir))
    assert not (place / "current.json").exists()
