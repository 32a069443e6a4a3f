"""Many ask at once: threads and asynchronous clients get what one who asks alone gets, to the bit."""

import asyncio
from concurrent.futures import ThreadPoolExecutor

import pytest
from haystack.components.retrievers.in_memory import InMemoryEmbeddingRetriever

from haystack_distill import DistilledRetriever, KaleQueryEncoder
from tests.conftest import sentences

THREADS, CLIENTS = 32, 256
QUERIES = sentences(40, seed=12)


@pytest.fixture(params=["table", "cached table", "onnx", "torch"])
def retriever(request, store):
    kind = request.param.rpartition(" ")[2]
    settings = {"cache_size": 8} if "cached" in request.param else {}
    folder = request.getfixturevalue("table" if kind == "table" else "student")
    encoder = KaleQueryEncoder(str(folder), backend="auto" if kind == "table" else kind, **settings)
    return DistilledRetriever(retriever=InMemoryEmbeddingRetriever(store), query_encoder=encoder, top_k=5)


def found(result):
    return [(document.id, document.score) for document in result["documents"]]


def test_threads_and_clients_get_what_one_alone_gets(retriever):
    asked = (QUERIES * 7)[:CLIENTS]
    with ThreadPoolExecutor(THREADS) as threads:  # all of them at a retriever that is not warm
        by_threads = list(threads.map(lambda query: found(retriever.run(query=query)), asked))

    async def clients():
        return await asyncio.gather(*(retriever.run_async(query=query) for query in asked))

    by_clients = [found(result) for result in asyncio.run(clients())]
    alone = {query: found(retriever.run(query=query)) for query in QUERIES}
    assert by_threads == by_clients == [alone[query] for query in asked]
