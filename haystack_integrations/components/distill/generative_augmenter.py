from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from haystack import Document, component
from haystack.core.serialization import component_to_dict
from haystack.utils import ComponentDevice, deserialize_callable

from haystack_integrations.components.distill.parts.checking import check_pace
from haystack_integrations.components.distill.parts.inner import close
from haystack_integrations.components.distill.parts.serialising import Serialisable, without_names

MODES = ("questions", "answers", "responses")
SEARCHED = 10
"""Documents that a round trip looks at, to tell a bad question from a retriever that searches other documents."""


@component
class GenerativeAugmenter(Serialisable):
    """
    Lets a generator write what a retriever can be trained on.

    `questions` that documents answer, for a corpus without queries; `answers` to questions that have none, for
    teachers that need them; `responses` to dialogues, the data level of G2R (arXiv 2108.12582). The generator is any
    chat generator of Haystack, or a causal language model that runs here. What it writes is filtered, counted, and
    marked as generated, with model, prompt and seed. A killed run goes on where it was.

    ### Usage example

    ```python
    from haystack.components.generators.chat import OpenAIChatGenerator
    from haystack_distill import GenerativeAugmenter

    generator = OpenAIChatGenerator(model="gpt-5-mini", max_retries=0)
    augmenter = GenerativeAugmenter(generator=generator, mode="questions", n=3, output="questions")
    result = augmenter.run(documents=documents)
    print(result["summary"]["kept"], result["summary"]["filters"], result["summary"]["usage"])
    ```
    """

    def __init__(
        self,
        *,
        output: str,
        mode: str = "questions",
        generator: Any = None,
        model: str | None = None,
        n: int = 3,
        seed: int = 0,
        seeded: bool = True,
        prompt: str | dict[str, str] | None = None,
        examples: list[dict[str, str]] | None = None,
        history: int = 20,
        sampling: dict[str, Any] | None = None,
        words: list[int] | None = None,
        without: list[str] | None = None,
        check: Callable[[str, str], bool] | str | None = None,
        keep_likeliest: float | None = None,
        likelihood_scorer: Any = None,
        retriever: Any = None,
        text_embedder: Any = None,
        round_trip_depth: int = 1,
        split: str = "train",
        concurrency: int = 8,
        tries: int = 4,
        timeout: float = 120.0,
        requests_per_minute: float | None = None,
        batch_size: int = 16,
        dtype: str | None = None,
        device: ComponentDevice | None = None,
        num_workers: int = 1,
        progress_bar: bool = True,
    ) -> None:
        """
        Say who writes what; nothing is loaded before `run`.

        :param output: The folder to make; one that is there already is kept if it was made of the same.
        :param mode: `questions`, `answers` or `responses`.
        :param generator: A chat generator. It is asked several times at once; its own retries are best turned off.
        :param model: Instead of a generator, a causal language model to run here: folder, hub name or GGUF file.
        :param n: How many texts are written for each document, question or context.
        :param seed: The same seed gives the same text, as far as the generator heeds it; local models do.
        :param seeded: Whether the generator takes `seed` in its `generation_kwargs`, as OpenAI's, vLLM's and Ollama's.
        :param prompt: A text with a place for `{text}` (for answers also `{question}`), or `text`, `system` and `cue`.
        :param examples: Your own pairs, shown to the generator: `source` and `text` (for answers also `question`).
        :param history: The most turns of a dialogue's context.
        :param sampling: How a local model chooses tokens: `max_new_tokens`, `temperature`, `top_k`, `top_p`. A chat
            generator has its own `generation_kwargs`.
        :param words: The fewest and the most words of a text; None takes the limits of the mode.
        :param without: Names of filters to leave out.
        :param check: Your own filter, a function of the text and its source that says whether the text stays, or
            its import path.
        :param keep_likeliest: The share of texts that stay, those with the highest mean log-likelihood (InPars).
        :param likelihood_scorer: A `TeacherLikelihoodScorer` with the signal `question` or `response`, for generators
            that tell no likelihoods.
        :param retriever: Only questions stay with which this retriever finds their document (Promptagator).
        :param text_embedder: The query encoder, if the retriever is an embedding retriever.
        :param round_trip_depth: How many of the first documents are looked at for it.
        :param split: The split of a BEIR folder whose questions are answered.
        :param concurrency: How many calls run at the same time.
        :param tries: How often a text is asked for before its row is set aside.
        :param timeout: After how many seconds a call counts as stalled.
        :param requests_per_minute: The most calls a minute.
        :param batch_size: How many texts a local model writes together.
        :param dtype: What a local model computes in: `float32` or `bfloat16`.
        :param device: Where a local model runs; None takes the default device.
        :param num_workers: More than 1 let a local model write in that many processes through Ray Data (extra `ray`),
            on this machine or on a cluster; docs/scale.md.
        :param progress_bar: Whether to show progress on stderr.
        :raises ValueError: If there is no such mode, not exactly one of `generator` and `model`, or a number is too
            small.
        """
        self.keep_parameters(
            locals(), positive=("n", "concurrency", "tries", "batch_size", "round_trip_depth", "num_workers")
        )
        if mode not in MODES:
            msg = f"There is no mode {mode!r}: {', '.join(MODES)}."
            raise ValueError(msg)
        if (generator is None) == (model is None):
            msg = "Give either a generator (a chat generator of Haystack) or a model (to run here)."
            raise ValueError(msg)
        if sampling and model is None:
            msg = "sampling is for a local model: a chat generator takes its own generation_kwargs."
            raise ValueError(msg)
        if self.num_workers > 1 and model is None:
            msg = "num_workers is for a local model: a chat generator is asked several times at once (concurrency)."
            raise ValueError(msg)
        check_pace(self.timeout, self.requests_per_minute)
        if isinstance(check, str):
            self.check = deserialize_callable(check)

    @component.output_types(output=str, summary=dict[str, Any])
    def run(self, source: str | None = None, documents: list[Document] | None = None) -> dict[str, Any]:
        """
        Generate, filter and write, or go on with it.

        :param source: For questions, a BEIR folder, a `.jsonl` file like its corpus, or a training set; for answers, a
            training set, a BEIR folder or a file of questions; for responses, a `.jsonl` file of dialogues.
        :param documents: Documents to write questions for, instead of a source.
        :returns: `output`: for questions, a BEIR folder with judgments; for answers, the questions in the form they
            came in; for responses, the `responses.jsonl` in the output folder. `summary`: what was generated, kept, and
            sent away by which filter; see `haystack_distill.generation.job.augment`.
        :raises ValueError: If source or documents are missing or bad, no text stays, or an unfinished run in the same
            place had other settings.
        :raises FileNotFoundError: If the source is missing.
        :raises FileExistsError: If the output exists and was made of something else.
        :raises ConnectionError: If the generator can't be reached or refuses everything; what it wrote before is kept.
            So it is if the Ray that RAY_ADDRESS names does not answer.
        :raises ImportError: If workers need Ray, and Ray is not installed.
        """
        from haystack_distill.files.bulk import check_workers
        from haystack_distill.generation.job import augment

        check_workers(self.num_workers)
        if (source is None) == (documents is None) or (documents is not None and self.mode != "questions"):
            msg = f"Give a source{' or documents' if self.mode == 'questions' else ''} to write {self.mode} for."
            raise ValueError(msg)
        job, write = self._job(source, documents)
        summary = augment(
            job,
            self.writer(),
            self._filters(),
            self.output,
            write,
            settings=self._settings(),
            progress=self.progress_bar,
        )
        output = str(Path(self.output) / "responses.jsonl") if self.mode == "responses" else self.output
        return {"output": output, "summary": summary}

    def _job(self, source: str | None, documents: list[Document] | None) -> tuple[Any, Any]:
        from haystack_distill.generation import modes
        from haystack_distill.generation.writing import order_of

        order = order_of(self.mode, self.prompt, self.examples, count=self.n, seed=self.seed)
        if documents is not None:
            return modes.questions({document.id: document.content or "" for document in documents}, order)
        if self.mode == "questions":
            return modes.questions(modes.read_documents(source or ""), order)
        if self.mode == "answers":
            return modes.answers(source or "", order, self.split)
        return modes.responses(source or "", order, self.history)

    def writer(self) -> Any:
        """Load the model, or warm up the chat generator, as the engine asks it: a `Generator`."""
        if self.model is not None:
            load = partial(_local, self.model, self.dtype, self.device, self.sampling or {}, batch_size=self.batch_size)
            return load(load_again=load, num_workers=self.num_workers)
        from haystack_integrations.components.distill.parts.chat_asking import asking

        return asking(self)

    def _filters(self) -> Any:
        from haystack_distill.generation import filters
        from haystack_distill.generation.writing import expects_mark

        words = (int(self.words[0]), int(self.words[1])) if self.words else None
        chosen = filters.text_filters(
            self.mode, words=words, marked=expects_mark(self.examples), without=self.without or ()
        )
        if self.check is not None:
            chosen["check"] = filters.checked(self.check)
        if self.keep_likeliest is not None:
            chosen["likelihood"] = filters.likeliest(self.keep_likeliest, self._likelihoods())
        if self.retriever is not None:
            chosen["round_trip"] = filters.found_again(self._search, self.round_trip_depth)
        return chosen

    def _likelihoods(self) -> Any:
        if self.likelihood_scorer is None:
            return None
        from haystack_distill.generation.likelihood import likelihoods

        return lambda candidates: likelihoods(self.likelihood_scorer.teacher(), candidates, self.mode)

    def _search(self, texts: Any) -> list[list[str]]:
        from haystack_distill.data.questions import Question
        from haystack_integrations.components.distill.parts.candidates import CandidateSearch

        search = CandidateSearch(self.retriever, self.text_embedder, max(SEARCHED, self.round_trip_depth), None)
        questions = [Question(str(number), text, [], {}) for number, text in enumerate(texts)]
        found = {row.query_id: row.document_ids for row in search.candidates(questions)}
        return [found.get(question.id, []) for question in questions]

    def _settings(self) -> dict[str, Any]:
        numbers = {"words": self.words, "keep_likeliest": self.keep_likeliest, "depth": self.round_trip_depth}
        parts = ("likelihood_scorer", "retriever", "text_embedder")
        used = {name: component_to_dict(getattr(self, name), name) for name in parts if getattr(self, name) is not None}
        return {**numbers, "check": getattr(self.check, "__qualname__", None), **without_names(used)}

    def close(self) -> None:
        """Let go of generator, scorer and retriever."""
        close(self.generator, self.likelihood_scorer, self.retriever, self.text_embedder)


def _local(
    model: str, dtype: str | None, device: ComponentDevice | None, sampling: dict[str, Any], **settings: Any
) -> Any:
    """Load a local generator, in whichever process, on what that has."""
    from haystack_distill.generation.local import LocalGenerator, Sampling
    from haystack_distill.teachers.readers import load_reader

    there = ComponentDevice.resolve_device(device).to_torch_str()
    checked, reader = Sampling(**sampling), load_reader(model, dtype=dtype, device=there)
    name = Path(model).name if Path(model).exists() else model  # kept with every text: where it lay tells nobody
    return LocalGenerator(reader, name, checked, **settings)
