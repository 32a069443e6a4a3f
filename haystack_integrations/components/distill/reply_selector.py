from typing import Any

import numpy as np
from haystack import Document, component
from haystack.dataclasses import ChatMessage

from haystack_distill.responses.covering import covering
from haystack_integrations.components.distill.parts.inner import close, warm_up
from haystack_integrations.components.distill.parts.serialising import Serialisable


@component
class ReplySelector(Serialisable):
    """
    Replies with the best responses that were retrieved, or lets a generator answer where none is good enough.

    More than one (`k`) are a set to choose from, as in suggested replies: the best, and others that cover what else may
    be meant instead of saying the same in other words (SimSR, arXiv 2305.16852). For these, retrieve fifty or so with
    their embeddings (`top_k=50`, and `return_embedding=True` where the store's retriever has it).

    Stores disagree on whether a score is a similarity or a distance. The order of the documents tells: where scores
    ascend, their negative counts, so that `score` and `threshold` are always higher for better replies. The threshold
    is calibrated on dev dialogues, see `haystack_distill.responses.threshold.threshold_for`.

    ### Usage example

    ```python
    from haystack.components.generators.chat import OpenAIChatGenerator
    from haystack_distill import ReplySelector

    selector = ReplySelector(generator=OpenAIChatGenerator(), threshold=0.62)
    result = selector.run(documents=documents, messages=messages)
    print(result["replies"][0].text, result["source"])
    ```
    """

    def __init__(self, *, generator: Any = None, threshold: float | None = None, k: int = 1) -> None:
        """
        Say how many replies are wanted, and what happens where nothing good was found.

        :param generator: A chat generator, which answers where the best score is below the threshold or nothing was
            found. None always replies from the index.
        :param threshold: The lowest score of the best reply, in the unit of the store's scores.
        :param k: How many replies to give.
        :raises ValueError: If only one of generator and threshold is given, or k is below 1.
        """
        if (generator is None) != (threshold is None):
            msg = "A fallback needs both a generator and a threshold: give both, or neither."
            raise ValueError(msg)
        self.keep_parameters(locals(), positive=("k",))

    def warm_up(self) -> None:
        """Warm up the generator."""
        warm_up(self.generator)

    def close(self) -> None:
        """Close the generator."""
        close(self.generator)

    @component.output_types(replies=list[ChatMessage], source=str, score=float | None)
    def run(self, documents: list[Document], messages: list[ChatMessage] | None = None) -> dict[str, Any]:
        """
        Choose the replies.

        :param documents: Retrieved responses, the best first; at least two where there is a threshold, at least `k`,
            and with their embeddings where `k` is above 1.
        :param messages: The dialogue, for the generator.
        :returns: `replies`: `k` messages, the best first, whose `meta` has the response's id, score and meta, or up to
            `k` that the generator gives. `source`: `index` or `generator`. `score`: that of the best response, higher
            is better; None if nothing was found.
        :raises ValueError: If nothing was found and there is no generator, fewer than `k` were found, documents have no
            score to compare or no embedding where these are needed, or the generator is needed and there are no
            messages or no reply of it.
        """
        responses = [document for document in documents if (document.content or "").strip()]
        score = _score(responses, needed=self.threshold is not None) if responses else None
        if self.threshold is not None and (score is None or score < self.threshold):
            return {"replies": self._generated(messages), "source": "generator", "score": score}
        if not responses:
            msg = "No response was retrieved: is the response index empty? A generator can answer instead."
            raise ValueError(msg)
        ascending = score is not None and score != responses[0].score
        replies = [_message(response, ascending=ascending) for response in self._chosen(responses)]
        return {"replies": replies, "source": "index", "score": score}

    def _chosen(self, responses: list[Document]) -> list[Document]:
        if self.k == 1:
            return responses[:1]
        if len(responses) < self.k:
            msg = f"{self.k} replies are to be chosen of {len(responses)} responses: retrieve more (top_k)."
            raise ValueError(msg)
        vectors = [response.embedding for response in responses]
        if any(vector is None for vector in vectors):
            msg = (
                f"{self.k} replies are chosen by what their embeddings cover, and a response has none: set "
                "return_embedding=True of the store's retriever, or of the store."
            )
            raise ValueError(msg)
        return [responses[place] for place in covering(np.array(vectors), self.k)]

    def _generated(self, messages: list[ChatMessage] | None) -> list[ChatMessage]:
        if not messages:
            msg = "The generator has to answer and there are no messages: connect the dialogue to ReplySelector."
            raise ValueError(msg)
        self.warm_up()
        replies: list[ChatMessage] = self.generator.run(messages=messages)["replies"][: self.k]
        if not replies:
            msg = f"{type(self.generator).__name__} had to answer and gave no reply."
            raise ValueError(msg)
        return replies


def _message(response: Document, *, ascending: bool) -> ChatMessage:
    """A response as a reply; `ascending` says that scores are distances."""
    score = -response.score if ascending and response.score is not None else response.score
    return ChatMessage.from_assistant(
        response.content, meta={**response.meta, "document_id": response.id, "score": score}
    )


def _score(documents: list[Document], *, needed: bool) -> float | None:
    """The best document's score, higher is better."""
    scores = [document.score for document in documents]
    if scores[0] is None or scores[-1] is None:
        if not needed:
            return None
        msg = "The retrieved responses have no score to compare with the threshold: use an embedding retriever."
        raise ValueError(msg)
    if needed and len(scores) < 2:
        msg = (
            "One response alone does not show whether its score is a similarity or a distance: retrieve at least two "
            "(top_k)."
        )
        raise ValueError(msg)
    return -scores[0] if scores[0] < scores[-1] else scores[0]
