from concurrent.futures import ThreadPoolExecutor
from threading import Lock
from typing import Any

from haystack import Document, component

from haystack_distill.fusion.model import Fusion
from haystack_integrations.components.distill.parts.checking import check_query, check_top_k
from haystack_integrations.components.distill.parts.inner import close, warm_up
from haystack_integrations.components.distill.parts.joining import joined
from haystack_integrations.components.distill.parts.searching import check_named, search_all, search_all_async
from haystack_integrations.components.distill.parts.serialising import Serialisable


@component
class DistilledHybridRetriever(Serialisable):
    """
    Searches with several retrievers at once and joins what they find with the weights that `FusionDistiller` fitted.

    Each search is a span for Haystack's tracer, `haystack_distill.retrieve`, with the tag `haystack_distill.retriever`.

    ### Usage example

    ```python
    from haystack.components.retrievers.in_memory import InMemoryBM25Retriever, InMemoryEmbeddingRetriever
    from haystack_distill import DistilledHybridRetriever, DistilledRetriever, KaleQueryEncoder

    retriever = DistilledHybridRetriever(
        retrievers={
            "keyword": InMemoryBM25Retriever(document_store),
            "dense": DistilledRetriever(
                retriever=InMemoryEmbeddingRetriever(document_store),
                query_encoder=KaleQueryEncoder(model="models/minilm-2-layers"),
            ),
        },
        fusion="models/hybrid",
    )
    documents = retriever.run(query="How do I merge two dictionaries?")["documents"]
    ```
    """

    def __init__(self, *, retrievers: dict[str, Any], fusion: str, top_k: int = 10) -> None:
        """
        Say what searches and how the lists are joined; the fusion is read by `warm_up` or the first run.

        :param retrievers: Name -> text retriever, under the names of the fitting.
        :param fusion: The folder that `FusionDistiller` wrote.
        :param top_k: How many documents to return. Each retriever is asked for as many as in fitting.
        :raises ValueError: If top_k is below 1, there are fewer than two retrievers, or one takes no query text.
        """
        check_named(retrievers)
        self.keep_parameters(locals(), positive=("top_k",))
        self._fusion: Fusion | None = None
        self._pool: ThreadPoolExecutor | None = None
        self._lock = Lock()

    def warm_up(self) -> None:
        """
        Read the fusion and warm up the retrievers.

        :raises FileNotFoundError: If the folder holds no fusion.
        :raises ValueError: If it is damaged, or was fitted for retrievers of other names.
        """
        with self._lock:
            if self._fusion is not None:
                return
            fusion = Fusion.load(self.fusion)
            if set(fusion.names) != set(self.retrievers):
                msg = (
                    f"The fusion {self.fusion} was fitted for {', '.join(fusion.names)}, and the retrievers are "
                    f"{', '.join(self.retrievers)}: give them the same names, or fit it again."
                )
                raise ValueError(msg)
            warm_up(*self.retrievers.values())
            self._pool = ThreadPoolExecutor(4 * len(self.retrievers), "distilled-hybrid")
            self._fusion = fusion

    @component.output_types(documents=list[Document])
    def run(
        self, query: str, filters: dict[str, Any] | None = None, top_k: int | None = None
    ) -> dict[str, list[Document]]:
        """
        Retrieve documents.

        :param query: The query.
        :param filters: Passed on to all retrievers.
        :param top_k: Overrides the one given at initialisation.
        :returns: `documents`, the best first: `score` is the fused score, `meta["retriever_scores"]` holds each
            retriever's own.
        :raises ValueError: If the query is empty, `top_k` is below 1, a document has no score, or see `warm_up`.
        """
        fusion = self._ready(query, top_k)
        assert self._pool is not None
        found = search_all(self.retrievers, query, fusion.top_k, filters, self._pool)
        return {"documents": joined(fusion, found, self.top_k if top_k is None else top_k)}

    @component.output_types(documents=list[Document])
    async def run_async(
        self, query: str, filters: dict[str, Any] | None = None, top_k: int | None = None
    ) -> dict[str, list[Document]]:
        """
        Retrieve documents without blocking the event loop.

        :param query: The query.
        :param filters: Passed on to all retrievers.
        :param top_k: Overrides the one given at initialisation.
        :returns: As `run`.
        :raises ValueError: As `run`.
        """
        fusion = self._ready(query, top_k)
        found = await search_all_async(self.retrievers, query, fusion.top_k, filters)
        return {"documents": joined(fusion, found, self.top_k if top_k is None else top_k)}

    def _ready(self, query: str, top_k: int | None) -> Fusion:
        check_query(query, "DistilledHybridRetriever", "search for")
        check_top_k(top_k)
        self.warm_up()
        assert self._fusion is not None
        return self._fusion

    def close(self) -> None:
        """Close the retrievers."""
        close(*self.retrievers.values())
        if self._pool is not None:
            self._pool.shutdown(wait=False)
            self._pool, self._fusion = None, None
