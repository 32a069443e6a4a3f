from typing import Any

from haystack import Document, component
from haystack.dataclasses import ChatMessage

from haystack_integrations.components.distill.parts.inner import close, warm_up
from haystack_integrations.components.distill.parts.serialising import Serialisable


@component
class ReplySelector(Serialisable):
    """
    Replies with the best response that was retrieved, or lets a generator answer where none is good enough.

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

    def __init__(self, *, generator: Any = None, threshold: float | None = None) -> None:
        """
        Say what happens where nothing good was found.

        :param generator: A chat generator, which answers where the best score is below the threshold or nothing was
            found. None always replies from the index.
        :param threshold: The lowest score of a reply, in the unit of the store's scores.
        :raises ValueError: If only one of the two is given.
        """
        if (generator is None) != (threshold is None):
            msg = "A fallback needs both a generator and a threshold: give both, or neither."
            raise ValueError(msg)
        self.keep_parameters(locals())

    def warm_up(self) -> None:
        """Warm up the generator."""
        warm_up(self.generator)

    def close(self) -> None:
        """Close the generator."""
        close(self.generator)

    @component.output_types(replies=list[ChatMessage], source=str, score=float | None)
    def run(self, documents: list[Document], messages: list[ChatMessage] | None = None) -> dict[str, Any]:
        """
        Choose the reply.

        :param documents: Retrieved responses, the best first; at least two where there is a threshold.
        :param messages: The dialogue, for the generator.
        :returns: `replies`: one message, whose `meta` has the response's id, score and meta, or what the generator
            says. `source`: `index` or `generator`. `score`: that of the best response, higher is better; None if
            nothing was found.
        :raises ValueError: If nothing was found and there is no generator, documents have no score to compare, or the
            generator is needed and there are no messages or no reply of it.
        """
        responses = [document for document in documents if (document.content or "").strip()]
        score = _score(responses, needed=self.threshold is not None) if responses else None
        if self.threshold is not None and (score is None or score < self.threshold):
            return {"replies": self._generated(messages), "source": "generator", "score": score}
        if not responses:
            msg = "No response was retrieved: is the response index empty? A generator can answer instead."
            raise ValueError(msg)
        best = responses[0]
        meta = {**best.meta, "document_id": best.id, "score": score}
        return {"replies": [ChatMessage.from_assistant(best.content, meta=meta)], "source": "index", "score": score}

    def _generated(self, messages: list[ChatMessage] | None) -> list[ChatMessage]:
        if not messages:
            msg = "The generator has to answer and there are no messages: connect the dialogue to ReplySelector."
            raise ValueError(msg)
        self.warm_up()
        replies: list[ChatMessage] = self.generator.run(messages=messages)["replies"][:1]
        if not replies:
            msg = f"{type(self.generator).__name__} had to answer and gave no reply."
            raise ValueError(msg)
        return replies


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
