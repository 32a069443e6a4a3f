from threading import Lock
from typing import Any

from haystack import Document, component
from haystack.core.component.types import Variadic

from haystack_distill.fusion.model import Fusion
from haystack_integrations.components.distill.parts.checking import check_top_k
from haystack_integrations.components.distill.parts.joining import joined
from haystack_integrations.components.distill.parts.searching import ranked
from haystack_integrations.components.distill.parts.serialising import Serialisable


@component
class DistilledJoiner(Serialisable):
    """
    Joins the documents of several retrievers with the weights that `FusionDistiller` fitted.

    It takes the place of a `DocumentJoiner` in a hybrid pipeline, with the same sockets. Haystack hands over the lists
    in the order in which the retrievers finish, so each list is known by its scores; where that can't be done, which
    fitting finds out, `DistilledHybridRetriever` knows its retrievers by name.

    ### Usage example

    ```python
    from haystack_distill import DistilledJoiner

    joiner = DistilledJoiner(fusion="models/hybrid", top_k=10)
    documents = joiner.run(documents=[keyword_documents, dense_documents])["documents"]
    ```
    """

    def __init__(self, fusion: str, *, top_k: int | None = None) -> None:
        """
        Say which fusion; nothing is read before `warm_up` or the first run.

        :param fusion: The folder that `FusionDistiller` wrote. Its retrievers should return as many documents as they
            did in fitting (its `top_k`, 100 by default).
        :param top_k: How many documents to return; None returns all.
        :raises ValueError: If top_k is below 1.
        """
        self.keep_parameters(locals(), positive=("top_k",))
        self._fusion: Fusion | None = None
        self._lock = Lock()

    def warm_up(self) -> None:
        """
        Read the fusion.

        :raises FileNotFoundError: If the folder holds none.
        :raises ValueError: If it is damaged, or its retrievers' lists can't be told apart by their scores.
        """
        self._opened()

    def _opened(self) -> Fusion:
        with self._lock:
            if self._fusion is None:
                fusion = Fusion.load(self.fusion)
                if not fusion.told_apart:
                    msg = (
                        f"The scores of {' and '.join(fusion.names)} are too much alike for DistilledJoiner to tell "
                        "whose list is whose: use DistilledHybridRetriever, which knows its retrievers by name."
                    )
                    raise ValueError(msg)
                self._fusion = fusion
            return self._fusion

    @component.output_types(documents=list[Document])
    def run(self, documents: Variadic[list[Document]], top_k: int | None = None) -> dict[str, Any]:
        """
        Join lists of documents.

        :param documents: One list from each retriever, in any order; lists may be empty.
        :param top_k: Overrides the one given at initialisation.
        :returns: `documents`, the best first: `score` is the fused score, `meta["retriever_scores"]` holds each
            retriever's own.
        :raises FileNotFoundError: If the folder holds no fusion.
        :raises ValueError: If there are more lists than retrievers, a list can be of none of them, or a document has no
            score.
        """
        top_k = self.top_k if top_k is None else top_k
        check_top_k(top_k)
        fusion, lists = self._opened(), list(documents)
        for document in (document for each in lists for document in each):
            if document.score is None:
                msg = f"The document {document.id!r} has no score: DistilledJoiner joins what retrievers have scored."
                raise ValueError(msg)
        names = fusion.whose([ranked(each[: fusion.top_k]) for each in lists])
        return {"documents": joined(fusion, dict(zip(names, lists, strict=True)), top_k)}
