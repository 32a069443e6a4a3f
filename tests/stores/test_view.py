"""The view of an index is what the store holds, whichever store it is."""

import numpy as np
import pytest

from haystack_distill.data.index import Sample, read_index
from haystack_integrations.components.distill.stores import EmbedderSettings, index_of, pages_of
from haystack_integrations.components.distill.stores.known import KINDS

ANY = EmbedderSettings("any")


@pytest.fixture
def small_pages(monkeypatch):
    """Seven documents a page, so that sixty take many."""
    for kind in KINDS.values():
        monkeypatch.setattr(f"{kind.read.__module__}.PAGE", 7)
    monkeypatch.setattr(f"{KINDS['QdrantDocumentStore'].read.__module__}.is_local", lambda _: False)


@pytest.mark.usefixtures("small_pages")
def test_a_view_holds_ids_texts_and_vectors(filled, documents, tmp_path):
    view = index_of(filled, EmbedderSettings("any", meta_fields_to_embed=["parity"]), tmp_path / "view")
    assert sorted(view.ids) == sorted(one.id for one in documents)
    by_id = {one.id: one for one in documents}
    assert view.texts == [f"{by_id[key].meta['parity']}\n{by_id[key].content}" for key in view.ids]
    assert np.allclose(view.vectors, [by_id[key].embedding for key in view.ids], atol=1e-6)
    assert view.normalized
    assert view.without_vector == 0


@pytest.mark.usefixtures("small_pages")
def test_pages_are_bounded_and_complete(filled, documents):
    pages = [page for page in pages_of(filled) if page]
    assert max(map(len, pages)) == 7
    assert len(pages) == 9
    assert sorted(key for page in pages for key, _, _ in page) == sorted(one.id for one in documents)


def test_a_sample_is_the_same_each_time_and_the_fingerprint_is_of_all(filled, tmp_path):
    whole = read_index(pages_of(filled), tmp_path / "whole", "cosine")
    part, again = (index_of(filled, ANY, tmp_path / name, ["d3", "d59"], 20) for name in ("1", "2"))
    assert part.ids == again.ids
    assert {"d3", "d59"} <= set(part.ids)
    assert 5 < len(part) < 45
    assert part.sampled_from == 60
    assert part.fingerprint == again.fingerprint == whole.fingerprint
    place = {key: row for row, key in enumerate(whole.ids)}
    assert np.array_equal(part.vectors, whole.vectors[[place[key] for key in part.ids]])


def test_a_changed_index_has_another_fingerprint(opener, documents, tmp_path):
    store = opener(documents)
    before = read_index(pages_of(store), tmp_path / "before", "cosine").fingerprint
    assert read_index(pages_of(store), tmp_path / "again", "cosine").fingerprint == before
    store.delete_documents([documents[7].id])
    assert read_index(pages_of(store), tmp_path / "after", "cosine").fingerprint != before


def test_reading_writes_nothing(filled, documents, tmp_path):
    index_of(filled, ANY, tmp_path / "view")
    stored = {one.id: one for one in filled.filter_documents()}
    assert {key: (one.content, one.meta) for key, one in stored.items()} == {
        one.id: (one.content, one.meta) for one in documents
    }


def test_a_sample_without_a_share_holds_all():
    assert Sample().holds("anything")
    assert not Sample(share=1e-18).holds("anything")
    assert Sample(share=1e-18, always=frozenset({"anything"})).holds("anything")
