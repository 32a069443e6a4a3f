import asyncio
from collections.abc import Mapping
from typing import Any

from haystack import Document, component
from haystack.components.embedders.types import TextEmbedder
from haystack.components.retrievers.types import EmbeddingRetriever

from haystack_distill.data.beir import Qrels
from haystack_distill.evaluation.sureness import FIRST
from haystack_integrations.components.distill.parts.cascade import Asking, Cascade
from haystack_integrations.components.distill.parts.checking import check_query, check_top_k
from haystack_integrations.components.distill.parts.inner import close, inputs_of, warm_up
from haystack_integrations.components.distill.parts.serialising import Serialisable
from haystack_integrations.components.distill.parts.similarity_guard import SimilarityGuard
from haystack_integrations.components.distill.stores import is_embedded, store_of


@component
class DistilledRetriever(Serialisable):
    """
    Retrieves documents for a query: a query encoder and any embedding retriever in one component.

    Or a sparse text embedder and a retriever of sparse embeddings, so that a hybrid can search with words as well.

    The order of the store is kept, whether its scores are similarities or distances, and the query vector stays inside
    the component: on a pipeline edge it costs milliseconds.

    With `fallbacks` it is a cascade: a query of whose answer the encoder is not sure is embedded and searched again by
    the next one, which costs more and knows more, down to the encoder that made the index. It is sure where its best
    score is high and well above the tenth; what is enough is calibrated (`calibrate`, `haystack-distill calibrate`).
    Who answered, and with which best score, is in the meta of each document and in tags for Haystack's tracer. If an
    encoder fails, what another one found is returned, marked.

    For Haystack's tracer, encoding and search are a span each, `haystack_distill.encode` and `haystack_distill.search`,
    with the name of the encoder as the tag `haystack_distill.encoder`.

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

    def __init__(
        self,
        *,
        retriever: EmbeddingRetriever,
        query_encoder: TextEmbedder,
        top_k: int | None = None,
        fallbacks: list[TextEmbedder] | None = None,
        thresholds: str | None = None,
    ) -> None:
        """
        Put an encoder before a retriever.

        :param retriever: The embedding retriever of the document store, or that of its sparse embeddings.
        :param query_encoder: A `KaleQueryEncoder`, or any other text embedder of the same kind.
        :param top_k: How many documents to return; None leaves it to the retriever.
        :param fallbacks: Encoders for the same index that are asked, one after another, when those before are not sure:
            in order of cost, the encoder that made the index, or any text embedder like it, last.
        :param thresholds: The JSON file that says when an encoder is sure, from `calibrate`; None is `cascade.json` in
            the folder of `query_encoder`.
        """
        self.keep_parameters(locals(), positive=("top_k",))
        self._encoders = [query_encoder, *(fallbacks or [])]
        self._cascade = Cascade(self._encoders, thresholds)
        self._guard = SimilarityGuard()
        self._kind = _kind_of(retriever)

    def warm_up(self) -> None:
        """
        Warm up encoders and retriever, and make sure, once, that the store ranks as the encoder's index did.

        :raises DocumentStoreError: If the store can't be searched now.
        :raises FileNotFoundError: If a cascade was not calibrated.
        :raises ValueError: If the store ranks otherwise than the index that the encoder was made for, or a cascade was
            calibrated with other encoders or has encoders of different indexes.
        """
        self._warm_up_parts()
        if self.fallbacks:
            self._cascade.load()

    def _warm_up_parts(self) -> None:
        warm_up(*self._encoders, self.retriever)
        self._guard.check(self.query_encoder, self.retriever)

    def close(self) -> None:
        """Close encoders and retriever."""
        close(*self._encoders, self.retriever)

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
        :raises ValueError: If the query is empty, `top_k` is below 1, or the store ranks otherwise than the encoder was
            made for.
        """
        check_query(query, "DistilledRetriever", "search for")
        check_top_k(top_k)
        self.warm_up()
        wanted = self._wanted(top_k)
        options = self._options(filters, wanted)
        asking = Asking(self._cascade)
        for encoder in asking:
            with asking.encoding():
                asking.vector = encoder.run(text=query)[self._kind]
            if asking.vector is not None:
                with asking.searching():
                    found = self.retriever.run(**self._asked_with(asking.vector), **options)
                asking.found = found["documents"]
        return {"documents": asking.documents()[:wanted]}

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
        :raises ValueError: If the query is empty, `top_k` is below 1, or the store ranks otherwise than the encoder was
            made for.
        """
        check_query(query, "DistilledRetriever", "search for")
        check_top_k(top_k)
        if not hasattr(self.retriever, "run_async") or is_embedded(store_of(self.retriever)):
            # One change of thread is enough for both.
            return await asyncio.to_thread(self.run, query, filters, top_k)
        if not (self._guard.passed and (not self.fallbacks or self._cascade.ready)):
            await asyncio.to_thread(self.warm_up)
        wanted = self._wanted(top_k)
        options = self._options(filters, wanted)
        asking = Asking(self._cascade)
        for encoder in asking:
            with asking.encoding():
                asking.vector = (await _embedded(encoder, query))[self._kind]
            if asking.vector is not None:
                with asking.searching():
                    found = await self.retriever.run_async(**self._asked_with(asking.vector), **options)
                asking.found = found["documents"]
        return {"documents": asking.documents()[:wanted]}

    def calibrate(
        self,
        queries: dict[str, str],
        qrels: Qrels | None = None,
        *,
        max_loss: float | None = None,
        max_share: float | None = None,
    ) -> dict[str, Any]:
        """
        Find out when each encoder of the cascade is sure enough, and write it to the file of the thresholds.

        Every encoder is asked every query. The bound holds for queries that are like these, see docs/cascade.md.

        :param queries: Id -> text, of a query log or generated; 30 or more, for small targets several hundred.
        :param qrels: Judgments. Without any, what the last encoder finds first is what should be found.
        :param max_loss: Which part of the last encoder's nDCG@10 may be lost at most.
        :param max_share: Which part of the queries an encoder may send on at most; give this or `max_loss`.
        :returns: What was written: thresholds, and the share that went on and the part that was lost with them.
        :raises ValueError: If there is no cascade, its encoders are for different indexes, or queries are too few.
        """
        from haystack_distill.evaluation.calibration import Target

        if not self.fallbacks:
            msg = "There is nothing to calibrate: name the encoders that are asked next as `fallbacks`."
            raise ValueError(msg)
        target = Target(max_loss, max_share)
        self._cascade.check_one_index()
        self._warm_up_parts()
        if qrels:
            queries = {query_id: queries[query_id] for query_id in qrels}
        found = [[self._first(encoder, text) for text in queries.values()] for encoder in self._encoders]
        return self._cascade.calibrated(list(queries), found, target, qrels)

    def _first(self, encoder: TextEmbedder, query: str) -> list[Document]:
        vector = encoder.run(text=query)[self._kind]
        documents: list[Document] = self.retriever.run(**self._asked_with(vector), top_k=FIRST)["documents"]
        return documents

    def _asked_with(self, vector: Any) -> dict[str, Any]:
        return {f"query_{self._kind}": vector}

    def _wanted(self, top_k: int | None) -> int | None:
        """How many documents to return; None leaves it to the retriever."""
        own = getattr(self.retriever, "top_k", None) if self.fallbacks else None
        return next((count for count in (top_k, self.top_k, own) if count is not None), None)

    def _options(self, filters: dict[str, Any] | None, wanted: int | None) -> dict[str, Any]:
        """What the retriever is asked with; a cascade looks at more documents than may be wanted."""
        if wanted is None:
            return {"filters": filters}
        return {"filters": filters, "top_k": max(wanted, FIRST) if self.fallbacks else wanted}


async def _embedded(encoder: TextEmbedder, query: str) -> Mapping[str, Any]:
    if hasattr(encoder, "run_async"):
        result: Mapping[str, Any] = await encoder.run_async(text=query)
        return result
    return await asyncio.to_thread(encoder.run, text=query)


def _kind_of(retriever: Any) -> str:
    """What a retriever searches with, as embedders name it."""
    inputs = inputs_of(retriever)
    sparse = "query_sparse_embedding" in inputs and "query_embedding" not in inputs
    return "sparse_embedding" if sparse else "embedding"
