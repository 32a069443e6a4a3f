from haystack import component
from haystack.utils import ComponentDevice, Secret

from haystack_distill.teachers.scores import Teacher
from haystack_integrations.components.distill.parts.teacher_ranking import TeacherScorer, prompt_of


@component
class TeacherLikelihoodScorer(TeacherScorer):
    """
    Scores documents by what they do to a likelihood: a ranker, and a labeller for training sets.

    Any causal language model or encoder-decoder, or an OpenAI-compatible server that returns log-probabilities of the
    prompt (vLLM). Signals: `question` (of the question, given the document; needs no answer), `pdist` (of the answer,
    given question and document), `loop` (what the answer loses when the document is left out), `emdr2` (as `pdist`,
    summed over tokens, for EMDR2's loss), `response`, `mi` and `pmi` (of the document as a reply to the query).
    Which to take is measured in docs/teachers.md.

    ### Usage example

    ```python
    from haystack import Document
    from haystack_distill import TeacherLikelihoodScorer

    scorer = TeacherLikelihoodScorer(model="HuggingFaceTB/SmolLM2-135M-Instruct", signal="question")
    documents = [Document(content="Oslo is the capital of Norway."), Document(content="Herring is a fish.")]
    ranked = scorer.run(query="What is the capital of Norway?", documents=documents)["documents"]
    print(ranked[0].content, ranked[0].meta["teacher_score"])
    ```
    """

    def __init__(
        self,
        *,
        model: str,
        signal: str = "question",
        prompt: str | dict[str, str] | None = None,
        api_base_url: str | None = None,
        api_key: Secret | None = None,
        api_dialect: str = "echo",
        top_k: int | None = None,
        batch_size: int = 8,
        max_passage_tokens: int = 512,
        dtype: str | None = None,
        device: ComponentDevice | None = None,
    ) -> None:
        """
        Say what to read; nothing is loaded before `warm_up` or the first run.

        :param model: Folder, hub name or GGUF file; with `api_base_url` the model's name on the server.
        :param signal: `question`, `pdist`, `loop`, `emdr2`, `response`, `mi` or `pmi`.
        :param prompt: A text with places `{question}` and `{passage}` or `{passages}`; None takes the signal's own.
        :param api_base_url: The address of an OpenAI-compatible server, such as `http://localhost:8000/v1`; None loads
            the model here.
        :param api_key: The key of that server.
        :param api_dialect: How the server gives log-probabilities of a prompt: `echo` or `prompt_logprobs`.
        :param top_k: How many documents to return; None for all.
        :param batch_size: How many prompts go through the model, or to the server, at once.
        :param max_passage_tokens: Longer documents are cut, and say so; a server reads them whole.
        :param dtype: `float32` or `bfloat16`; None keeps a 16-bit model in bfloat16 where the device multiplies it.
        :param device: Where the model runs; None takes the default device.
        """
        self.keep_parameters(locals())

    def _load(self) -> Teacher:
        from haystack_distill.teachers.likelihood import LikelihoodTeacher
        from haystack_distill.teachers.server import ServerReader

        reader = (
            ServerReader(
                self.api_base_url,
                self.model,
                api_key=self.api_key.resolve_value() if self.api_key else None,
                dialect=self.api_dialect,
                batch_size=self.batch_size,
            )
            if self.api_base_url
            else self._load_reader()
        )
        return LikelihoodTeacher(reader, self.signal, prompt_of(self.prompt), name=self.model)
