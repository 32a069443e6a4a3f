from haystack import component
from haystack.utils import ComponentDevice

from haystack_distill.teachers.scores import Teacher
from haystack_integrations.components.distill.parts.teacher_ranking import TeacherScorer, prompt_of


@component
class TeacherAttentionScorer(TeacherScorer):
    """
    Scores documents by the attention that a reader gives them: a ranker, and a labeller for training sets.

    Reading attention costs little more than the forward pass: the model stays on its fast kernel, and only the rows of
    the question's or answer's tokens are computed beside it.

    Signals: `dkrr` (as DKRR published it, for Fusion-in-Decoder readers alone), `adist` (Atlas; needs answers), `icr`
    (in-context re-ranking: all documents in one prompt, calibrated by a question that asks for nothing) and `heads` (as
    `icr`, from the few heads that find evidence; choose them with `haystack-distill heads`). Which to take is measured
    in docs/teachers.md.

    ### Usage example

    ```python
    from haystack import Document
    from haystack_distill import TeacherAttentionScorer

    scorer = TeacherAttentionScorer(model="HuggingFaceTB/SmolLM2-135M-Instruct", signal="icr")
    documents = [Document(content="Oslo is the capital of Norway."), Document(content="Herring is a fish.")]
    ranked = scorer.run(query="What is the capital of Norway?", documents=documents)["documents"]
    print(ranked[0].content, ranked[0].meta["teacher_score"])
    ```
    """

    def __init__(
        self,
        *,
        model: str,
        signal: str = "icr",
        prompt: str | dict[str, str] | None = None,
        heads: str | None = None,
        permutations: int = 1,
        top_k: int | None = None,
        batch_size: int = 8,
        max_passage_tokens: int = 512,
        dtype: str | None = None,
        device: ComponentDevice | None = None,
    ) -> None:
        """
        Say what to read; nothing is loaded before `warm_up` or the first run.

        :param model: An encoder-decoder of the T5 or BART family or a causal language model: folder, hub name or GGUF.
        :param signal: `dkrr`, `adist`, `icr` or `heads`.
        :param prompt: A text with places `{question}` and `{passage}` or `{passages}`; None takes the signal's own.
            With `{passages}` a causal model reads all documents in one prompt for `adist` as well.
        :param heads: The file that `haystack-distill heads` wrote, for `heads`.
        :param permutations: In how many orders a causal model reads documents that stand in one prompt, against a bias
            by position.
        :param top_k: How many documents to return; None for all.
        :param batch_size: How many prompts go through the model at once.
        :param max_passage_tokens: Longer documents are cut, and say so.
        :param dtype: `float32` or `bfloat16`; None keeps a 16-bit model in bfloat16 where the device multiplies it.
        :param device: Where the model runs; None takes the default device.
        """
        self.keep_parameters(locals())

    def _load(self) -> Teacher:
        from haystack_distill.teachers.attention_signals import AttentionTeacher
        from haystack_distill.teachers.heads import Heads
        from haystack_distill.teachers.signals import CAUSAL

        reader = self._load_reader()
        if (self.signal, reader.kind) == ("dkrr", CAUSAL):
            msg = (
                f"signal='dkrr' is for encoder-decoders: in a decoder-only one, as {self.model}, it ranks at chance. "
                "Take 'adist', 'heads', or the likelihoods of TeacherLikelihoodScorer."
            )
            raise ValueError(msg)
        return AttentionTeacher(
            reader,
            self.signal,
            prompt_of(self.prompt),
            heads=Heads.load(self.heads) if self.heads else None,
            permutations=self.permutations,
            name=self.model,
        )
