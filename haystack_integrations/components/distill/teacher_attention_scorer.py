# SPDX-FileCopyrightText: 2026-present haystack-distill contributors
#
# SPDX-License-Identifier: Apache-2.0

import asyncio
from threading import Lock
from typing import Any

from haystack import Document, component, default_from_dict, default_to_dict
from haystack.utils import ComponentDevice

from haystack_integrations.components.distill.parts.teacher_ranking import check_rank, plain_parameters, prompt_of, rank


@component
class TeacherAttentionScorer:
    """
    Scores documents by the attention that a reader gives them: a ranker, and a labeller for training sets.

    Reading attention costs little more than the forward pass: the model stays on its fast kernel, and only the rows of
    the question's or answer's tokens are computed beside it.

    Signals: `dkrr` (as DKRR published it; made for Fusion-in-Decoder readers), `adist` (Atlas; needs answers), `icr`
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
        :param heads: The file that `haystack-distill heads` wrote, for `heads`.
        :param permutations: In how many orders `icr` and `heads` read the documents, against a bias by position.
        :param top_k: How many documents to return; None for all.
        :param batch_size: Prompts a forward pass.
        :param max_passage_tokens: Longer documents are cut, and say so.
        :param dtype: `float32` or `bfloat16`; None keeps a 16-bit model in bfloat16 where the device multiplies it.
        :param device: Where the model runs; None takes the default device.
        """
        self.model = model
        self.signal = signal
        self.prompt = prompt
        self.heads = heads
        self.permutations = int(permutations)
        self.top_k = top_k
        self.batch_size = int(batch_size)
        self.max_passage_tokens = int(max_passage_tokens)
        self.dtype = dtype
        self.device = device
        self._teacher: Any = None
        self._lock = Lock()

    def warm_up(self) -> None:
        """Load the model, once, whichever thread comes first."""
        if self._teacher is None:
            with self._lock:
                if self._teacher is None:
                    self._teacher = self._load()

    def teacher(self) -> Any:
        """
        The engine's teacher, loaded: what `TeacherLabeller` works with.

        :returns: A `haystack_distill.teachers.scores.Teacher`.
        """
        self.warm_up()
        return self._teacher

    def _load(self) -> Any:
        # Takes seconds to import, which a pipeline that only names this class need not wait for.
        from haystack_distill.teachers.attention_signals import AttentionTeacher
        from haystack_distill.teachers.heads import Heads
        from haystack_distill.teachers.readers import load_reader

        reader = load_reader(
            self.model,
            dtype=self.dtype,
            device=ComponentDevice.resolve_device(self.device).to_torch_str(),
            batch_size=self.batch_size,
            max_passage_tokens=self.max_passage_tokens,
        )
        return AttentionTeacher(
            reader,
            self.signal,
            prompt_of(self.prompt),
            heads=Heads.load(self.heads) if self.heads else None,
            permutations=self.permutations,
            name=self.model,
        )

    @component.output_types(documents=list[Document])
    def run(
        self, query: str, documents: list[Document], answers: list[str] | None = None, top_k: int | None = None
    ) -> dict[str, list[Document]]:
        """
        Score documents for a query, and put the best first.

        :param query: The query.
        :param documents: The documents.
        :param answers: Reference answers, for signals that need them; the first is used.
        :param top_k: Overrides the one given at initialisation.
        :returns: `documents` with the score in `score` and `meta["teacher_score"]`, the best first; those that were cut
            to fit have `meta["teacher_cut"]`. No documents in, none out.
        :raises ValueError: If the query or a document is empty, an id comes twice, a needed answer is missing, the
            query does not fit the model's window, or a score is not a number.
        """
        top_k = self.top_k if top_k is None else top_k
        check_rank(type(self).__name__, query, documents, top_k)
        return {"documents": rank(self.teacher(), query, documents, answers, top_k) if documents else []}

    @component.output_types(documents=list[Document])
    async def run_async(
        self, query: str, documents: list[Document], answers: list[str] | None = None, top_k: int | None = None
    ) -> dict[str, list[Document]]:
        """
        Score documents in a worker thread.

        :param query: The query.
        :param documents: The documents.
        :param answers: Reference answers.
        :param top_k: Overrides the one given at initialisation.
        :returns: As `run`.
        :raises ValueError: As `run`.
        """
        return await asyncio.to_thread(self.run, query, documents, answers, top_k)

    def close(self) -> None:
        """Let go of the model."""
        with self._lock:
            self._teacher = None

    def to_dict(self) -> dict[str, Any]:
        """
        Serialise this component.

        :returns: Its type and init parameters.
        """
        return default_to_dict(self, **plain_parameters(self))

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> "TeacherAttentionScorer":
        """
        Restore this component.

        :param data: What `to_dict` returned.
        :returns: The component.
        """
        return default_from_dict(cls, data)
