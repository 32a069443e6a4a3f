"""What serves follows the pointer, forward and back, and no further than to an index that is there."""

import pytest
from haystack import Document

from haystack_distill import CurrentRetriever
from haystack_distill.evaluation.pointer import Serving, write_pointer
from tests.indexes import RETRIEVERS, close, make_store


def test_a_retriever_follows_the_pointer_and_survives_a_bad_one(place, documents, bert, caplog):
    """A switch takes effect with the next query; an index that can't be opened does not take the old one down."""
    old = make_store("faiss", place / "old", documents)
    new = make_store("faiss", place / "new", [Document(id="only", content="x", embedding=documents[0].embedding)])
    write_pointer(place / "current.json", Serving(bert, bert, old.to_dict()))
    retriever = CurrentRetriever(pointer="current.json", retriever=RETRIEVERS["faiss"], top_k=3)
    assert len(retriever.run(query="river")["documents"]) == 3
    write_pointer(place / "current.json", Serving("nowhere", bert, new.to_dict()))
    assert len(retriever.run(query="river")["documents"]) == 3
    assert "goes on serving" in caplog.text
    write_pointer(place / "current.json", Serving(bert, bert, new.to_dict()))
    assert [one.id for one in retriever.run(query="river")["documents"]] == ["only"]


def test_an_encoder_may_be_named_as_on_the_hub(place, documents, bert, on_the_hub):
    """As the index's embedder usually is."""
    named = on_the_hub("team/encoder")
    store = make_store("faiss", place / "store", documents)
    write_pointer(place / "current.json", Serving(named, named, store.to_dict()))
    retriever = CurrentRetriever(pointer="current.json", retriever=RETRIEVERS["faiss"], top_k=3)
    assert len(retriever.run(query="river")["documents"]) == 3
    write_pointer(place / "current.json", Serving("team/mistyped", bert, store.to_dict()))
    with pytest.raises(FileNotFoundError, match="team/mistyped is no folder here"):
        CurrentRetriever(pointer="current.json", retriever=RETRIEVERS["faiss"]).warm_up()


def test_the_way_back_is_open_and_an_empty_index_does_not_take_over(place, documents, bert, caplog):
    """An embedded store can't be opened twice; a mistyped path makes an empty one."""
    for name in "ab":
        close(make_store("qdrant", place / name, documents[:40] if name == "a" else documents))
    places = {
        name: {"path": str(place / name), "embedding_dim": 32, "similarity": "cosine"} for name in ("a", "b", "c")
    }
    kind = "haystack_integrations.document_stores.qdrant.document_store.QdrantDocumentStore"
    serving = {name: Serving(bert, bert, {"type": kind, "init_parameters": one}) for name, one in places.items()}
    retriever = CurrentRetriever(pointer="current.json", retriever=RETRIEVERS["qdrant"], top_k=60)
    for name, count in (("a", 40), ("a", 40), ("b", 60), ("a", 40), ("c", 40), ("b", 60)):
        write_pointer("current.json", serving[name])
        assert len(retriever.run(query="river")["documents"]) == count, name
    assert "names holds no documents" in caplog.text
    retriever.close()
