"""DistilledRetriever over every store: order, filters, top_k, meta data and ids; synchronous and asynchronous."""

import numpy as np

from tests.stores.conftest import both_ways

QUERY = "river bridge stone winter"


def test_the_order_is_that_of_the_vectors(distilled, teacher, documents):
    vectors = np.array([one.embedding for one in documents])
    expected = np.argsort(-(vectors @ teacher.encode_queries([QUERY])[0]))[:10]
    assert [one.id for one in both_ways(distilled, query=QUERY, top_k=10)] == [f"d{number}" for number in expected]


def test_top_k(distilled):
    assert [len(both_ways(distilled, query=QUERY, top_k=top_k)) for top_k in (1, 4, 25)] == [1, 4, 25]


def test_filters_keep_the_order(distilled):
    filters = {"field": "meta.parity", "operator": "==", "value": "odd"}
    # FAISS looks at top_k * 10 documents and then filters.
    everything = [one for one in both_ways(distilled, query=QUERY, top_k=60) if one.meta["parity"] == "odd"]
    found = both_ways(distilled, query=QUERY, filters=filters, top_k=8)
    assert [one.id for one in found] == [one.id for one in everything[:8]]


def test_filters_that_join_conditions(distilled):
    filters = {
        "operator": "AND",
        "conditions": [
            {"field": "meta.number", "operator": ">=", "value": 20},
            {"field": "meta.number", "operator": "<", "value": 30},
            {"field": "meta.parity", "operator": "!=", "value": "odd"},
        ],
    }
    found = both_ways(distilled, query=QUERY, filters=filters, top_k=10)
    assert {one.meta["number"] for one in found} == {20, 22, 24, 26, 28}


def test_ids_contents_and_meta_data_are_intact(distilled, documents):
    found = both_ways(distilled, query=QUERY, top_k=60)
    assert {one.id: (one.content, one.meta) for one in found} == {one.id: (one.content, one.meta) for one in documents}
