import asyncio
import logging
from pathlib import Path
from threading import Lock
from typing import Any

from haystack import Document, component
from haystack.core.serialization import import_class_by_name

from haystack_distill.evaluation.pointer import Serving
from haystack_integrations.components.distill.distilled_retriever import DistilledRetriever
from haystack_integrations.components.distill.kale_query_encoder import KaleQueryEncoder
from haystack_integrations.components.distill.parts.reembedding import open_store, serving_now
from haystack_integrations.components.distill.parts.serialising import Serialisable

logger = logging.getLogger(__name__)


@component
class CurrentRetriever(Serialisable):
    """
    Retrieves from whichever index serves: the one that the pointer of an `IndexSwitcher` names.

    Query encoder and index always change together. A switch takes effect with the next query, which waits until the new
    index is open. If the new index can't be opened, the old index goes on serving until the pointer is written again,
    and the log says why.

    ### Usage example

    ```python
    from haystack_distill import CurrentRetriever

    retriever = CurrentRetriever(
        pointer="current.json",
        retriever="haystack_integrations.components.retrievers.qdrant.retriever.QdrantEmbeddingRetriever",
    )
    documents = retriever.run(query="How do I merge two dictionaries?")["documents"]
    ```
    """

    def __init__(self, *, pointer: str, retriever: str, top_k: int | None = None) -> None:
        """
        Say where the pointer is; nothing is opened before `warm_up` or the first run.

        :param pointer: The JSON file that `IndexSwitcher` writes.
        :param retriever: The embedding retriever of the document store, by its whole import path.
        :param top_k: How many documents to return; None leaves it to the retriever.
        :raises ValueError: If top_k is below 1.
        """
        self.keep_parameters(locals(), positive=("top_k",))
        self._opened: DistilledRetriever | None = None
        self._serving: Serving | None = None
        self._before: tuple[Serving, DistilledRetriever] | None = None
        self._seen: tuple[int, int] | None = None
        self._lock = Lock()

    def warm_up(self) -> None:
        """
        Open the index that serves.

        :raises FileNotFoundError: If there is no pointer, or no such encoder as it names.
        :raises ValueError: If it is no pointer, or the index that it names is empty.
        """
        self._current()

    def _current(self) -> DistilledRetriever:
        with self._lock:
            file = Path(self.pointer)
            stat = file.stat() if file.exists() else None
            seen = (stat.st_ino, stat.st_mtime_ns) if stat else None
            if self._opened is None or (seen is not None and seen != self._seen):
                self._open()
                self._seen = seen
            assert self._opened is not None
            return self._opened

    def _open(self) -> None:
        try:
            serving = serving_now(self.pointer)
            if serving == self._serving:  # only written anew
                return
            # An embedded store can't be opened twice, and the way back must be open.
            before_serving, before = self._before or (None, None)
            opened = before if before and serving == before_serving else self._open_index(serving)
        except Exception:
            if self._opened is None:
                raise
            logger.exception("%s names an index that can't be opened; the one before it goes on serving.", self.pointer)
            return
        if self._opened is not None and self._serving is not None:
            logger.info("%s has moved: %s serves queries now.", self.pointer, serving.query_model)
            if before and before is not opened:
                before.close()
            self._before = (self._serving, self._opened)
        self._serving, self._opened = serving, opened

    def _open_index(self, serving: Serving) -> DistilledRetriever:
        store = open_store(serving)
        if not store.count_documents():  # clients connect with the first call, and some make what they don't find
            msg = f"The index that {self.pointer} names holds no documents: correct it, or write the one before again."
            raise ValueError(msg)
        kind: Any = import_class_by_name(self.retriever)
        encoder = KaleQueryEncoder(serving.query_model)
        opened = DistilledRetriever(retriever=kind(document_store=store), query_encoder=encoder, top_k=self.top_k)
        opened.warm_up()
        return opened

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
        :raises FileNotFoundError: If there is no pointer.
        :raises ValueError: If the query is empty, or `top_k` is below 1.
        """
        return self._current().run(query=query, filters=filters, top_k=top_k)

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
        :raises FileNotFoundError: If there is no pointer.
        :raises ValueError: If the query is empty, or `top_k` is below 1.
        """
        current = await asyncio.to_thread(self._current)  # which opens another index after a switch
        return await current.run_async(query=query, filters=filters, top_k=top_k)

    def close(self) -> None:
        """Close what is open."""
        for retriever in (self._opened, self._before[1] if self._before else None):
            if retriever is not None:
                retriever.close()
