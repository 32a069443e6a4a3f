import asyncio
from typing import Any

from haystack import Document, component
from haystack.components.embedders.types import TextEmbedder
from haystack.components.retrievers.types import EmbeddingRetriever

from haystack_integrations.components.distill.parts.serialising import Serialisable
from haystack_integrations.components.distill.parts.similarity_guard import SimilarityGuard
from haystack_integrations.components.distill.stores import is_embedded, store_of


@component
class DistilledRetriever(Serialisable):
    """
    Retrieves documents for a query: a query encoder and any embedding retriever in one component.

    The order of the store is kept, whether its scores are similarities or distances, and the query vector stays inside
    the component: on a pipeline edge it costs milliseconds.

    ### Usage example

    ```python
    from haystack.components.retrievers.in_memory import InMemoryEmbeddingRetriever
    from haystack_distill import DistilledRetriever, KaleQueryEncoder

    retriever = DistilledRetriever(
        query_encoder=KaleQueryEncoder(model="models/minilm-2-layers"),
        retriever=InMemoryEmbeddingRetriever(document_store),
        top_k=5,
    )
    documents = retriever.run(query="How do I merge two dictionaries?")["documents"]
    ```
    """

    def __init__(self, *, retriever: EmbeddingRetriever, query_encoder: TextEmbedder, top_k: int | None = None) -> None:
        """
        Put an encoder before a retriever.

        :param retriever: The embedding retriever of the document store.
        :param query_encoder: A `KaleQueryEncoder`, or any other text embedder.
        :param top_k: How many documents to return; None leaves it to the retriever.
        """
        self.keep_parameters(locals(), positive=("top_k",))
        self._guard = SimilarityGuard()

    def warm_up(self) -> None:
        """
        Warm up encoder and retriever, and make sure, once, that the encoder was made for an index that ranks like this.

        :raises DocumentStoreError: If the store can't be searched now.
        :raises ValueError: If the store ranks otherwise than the index that the encoder was made for.
        """
        for part in (self.query_encoder, self.retriever):
            if hasattr(part, "warm_up"):
                part.warm_up()
        self._guard.check(self.query_encoder, self.retriever)

    def close(self) -> None:
        """Close encoder and retriever."""
        for part in (self.query_encoder, self.retriever):
            if hasattr(part, "close"):
                part.close()

    @component.output_types(documents=list[Document])
    def run(
        self, query: str, filters: dict[str, Any] | None = None, top_k: int | None = None
    ) -> dict[str, list[Document]]:
        """
        Retrieve documents.

        :param query: The query.
        :param filters: Passed on to the retriever.
        :param top_k: Overrides the one given at initialisation.
        :returns: `documents`, in the store's order.
        :raises ValueError: If the query is empty, or the store ranks otherwise than the encoder was made for.
        """
        self._check(query)
        self.warm_up()
        embedding = self.query_encoder.run(text=query)["embedding"]
        result = self.retriever.run(query_embedding=embedding, **self._options(filters, top_k))
        return {"documents": result["documents"]}

    @component.output_types(documents=list[Document])
    async def run_async(
        self, query: str, filters: dict[str, Any] | None = None, top_k: int | None = None
    ) -> dict[str, list[Document]]:
        """
        Retrieve documents without blocking the event loop.

        :param query: The query.
        :param filters: Passed on to the retriever.
        :param top_k: Overrides the one given at initialisation.
        :returns: `documents`, in the store's order.
        :raises ValueError: If the query is empty, or the store ranks otherwise than the encoder was made for.
        """
        self._check(query)
        if not hasattr(self.retriever, "run_async") or is_embedded(store_of(self.retriever)):
            # One change of thread is enough for both.
            return await asyncio.to_thread(self.run, query, filters, top_k)
        if not self._guard.passed:
            await asyncio.to_thread(self.warm_up)
        if hasattr(self.query_encoder, "run_async"):
            embedded = await self.query_encoder.run_async(text=query)
        else:
            embedded = await asyncio.to_thread(self.query_encoder.run, text=query)
        options = self._options(filters, top_k)
        result = await self.retriever.run_async(query_embedding=embedded["embedding"], **options)
        return {"documents": result["documents"]}

    @staticmethod
    def _check(query: str) -> None:
        if not isinstance(query, str) or not query.strip():
            msg = "The query is empty: DistilledRetriever needs some text to search for."
            raise ValueError(msg)

    def _options(self, filters: dict[str, Any] | None, top_k: int | None) -> dict[str, Any]:
        chosen = self.top_k if top_k is None else top_k
        return {"filters": filters} if chosen is None else {"filters": filters, "top_k": chosen}
