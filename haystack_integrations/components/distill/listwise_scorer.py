from typing import Any

from haystack import component

from haystack_distill.teachers.scores import Teacher
from haystack_integrations.components.distill.parts.checking import check_pace
from haystack_integrations.components.distill.parts.inner import close
from haystack_integrations.components.distill.parts.teacher_ranking import TeacherScorer, prompt_of


@component
class ListwiseScorer(TeacherScorer):
    """
    Scores documents by the order that a chat model puts them in: a ranker, and a labeller for training sets.

    For whoever can only talk to a model: it needs no likelihoods and no weights, so any chat generator of Haystack
    serves. The model sees up to 20 documents at once and names them in order (RankGPT, arXiv 2304.09542); longer lists
    are read in overlapping windows from their end. The score is 1 for the first, 1/2 for the second, and so on; of up
    to 20, documents that the model does not name share the places that are left.

    ### Usage example

    ```python
    from haystack import Document
    from haystack.components.generators.chat import OpenAIChatGenerator
    from haystack_distill import ListwiseScorer

    generator = OpenAIChatGenerator(model="gpt-5-mini", max_retries=0)
    scorer = ListwiseScorer(generator=generator, permutations=2)
    documents = [Document(content="Oslo is the capital of Norway."), Document(content="Herring is a fish.")]
    ranked = scorer.run(query="What is the capital of Norway?", documents=documents)["documents"]
    ```
    """

    def __init__(
        self,
        *,
        generator: Any,
        prompt: str | dict[str, str] | None = None,
        permutations: int = 1,
        top_k: int | None = None,
        seeded: bool = True,
        concurrency: int = 8,
        tries: int = 4,
        timeout: float = 120.0,
        requests_per_minute: float | None = None,
    ) -> None:
        """
        Say who is asked; nothing is asked before the first run.

        :param generator: A chat generator. It is asked several times at once; its own retries are best turned off, and
            its temperature set to 0.
        :param prompt: A text with places `{question}` and `{passages}`; None takes RankZephyr's.
        :param permutations: In how many orders the documents are shown; the scores are averaged. With two, what a model
            chooses by position alone cancels out, at twice the cost.
        :param top_k: How many documents to return; None for all.
        :param seeded: Whether the generator takes `seed` in its `generation_kwargs`, as OpenAI's, vLLM's and Ollama's.
        :param concurrency: How many calls run at the same time.
        :param tries: How often a query is asked about before it is set aside.
        :param timeout: After how many seconds a call counts as stalled.
        :param requests_per_minute: The most calls a minute.
        :raises ValueError: If a number is below 1.
        """
        self.keep_parameters(locals(), positive=("permutations", "concurrency", "tries"))
        check_pace(self.timeout, self.requests_per_minute)

    def _load(self) -> Teacher:
        from haystack_distill.generation.listwise import ListwiseTeacher
        from haystack_integrations.components.distill.parts.chat_asking import asking

        return ListwiseTeacher(asking(self), prompt_of(self.prompt), permutations=self.permutations)

    def close(self) -> None:
        """Let go of the generator."""
        super().close()
        close(self.generator)
