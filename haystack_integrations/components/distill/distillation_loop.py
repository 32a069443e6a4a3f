from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from haystack import component
from haystack.components.embedders.types import DocumentEmbedder
from haystack.utils import ComponentDevice

from haystack_integrations.components.distill.parts.serialising import WATCHING, Serialisable, without_names
from haystack_integrations.components.distill.stores import EmbedderSettings, store_of

if TYPE_CHECKING:
    from haystack_integrations.components.distill.distillation_round import RoundSettings

BY_LOOP = {"document_store", "model", "output", "device", "progress_bar", "asymmetric"}
"""Parameters of the distiller that the loop sets itself or has no use for."""
BEFORE_TRAINING = {"update", "max_documents", *(field.name for field in fields(EmbedderSettings))}
"""Parameters of the distiller that candidates and labels may depend on."""


@component
class DistillationLoop(Serialisable):
    """
    Retrieve, label, train, and again with the better retriever: the iterations of DKRR (arXiv 2012.04584, section 3.3).

    It ends after `rounds`, or as soon as a round is no better on dev. Each round is a folder of its own under `output`
    (`training_set`, `model`), `round-0` is the retriever as it was, and `rounds.json` says which is recommended. A run
    that was killed goes on where it was, in the middle of labelling or training too.

    With `update="both"` documents are embedded again between rounds, in memory; the index of the store stays as it is
    until pipelines/reindex.yaml makes a new one.

    ### Usage example

    ```python
    from haystack.components.retrievers.in_memory import InMemoryEmbeddingRetriever
    from haystack_distill import DistillationLoop, TeacherLikelihoodScorer

    loop = DistillationLoop(
        retriever=InMemoryEmbeddingRetriever(document_store),
        model="sentence-transformers/all-MiniLM-L6-v2",
        scorer=TeacherLikelihoodScorer(model="HuggingFaceTB/SmolLM2-135M-Instruct", signal="question"),
        output="models/minilm-dkrr",
        rounds=2,
    )
    result = loop.run(queries="questions.jsonl")
    print(result["model_path"], [row["after"] for row in result["rounds"]])
    ```
    """

    def __init__(
        self,
        *,
        retriever: Any,
        model: str | DocumentEmbedder,
        output: str,
        scorer: Any = None,
        rounds: int = 2,
        first_retriever: Any = None,
        reader_fine_tuner: Any = None,
        top_k: int = 16,
        split: str = "train",
        distiller: dict[str, Any] | None = None,
        device: ComponentDevice | None = None,
        progress_bar: bool = True,
    ) -> None:
        """
        Say who retrieves, who labels and how often; nothing is loaded before `run`.

        :param retriever: The embedding retriever of the index.
        :param model: The query encoder to train: folder, hub name, or the SentenceTransformersDocumentEmbedder of the
            indexing pipeline, whose settings then count.
        :param output: The folder of the rounds; it may exist if it is of the same settings.
        :param scorer: The teacher: a scorer or any ranker, see `TeacherLabeller`. None takes the judgments of the
            queries instead, which people or `GenerativeAugmenter` made, see `TrainingSetBuilder`.
        :param rounds: How many rounds there are at most.
        :param first_retriever: Finds the candidates of the first round, such as a BM25 retriever.
        :param reader_fine_tuner: A `ReaderFineTuner`: trains the reader on each round's candidates before it labels
            them, always from its own model, as the paper does; the scorer then uses what it made.
        :param top_k: How many candidates a query gets.
        :param split: The split of a BEIR folder or data set whose queries are learnt from.
        :param distiller: Init parameters of `RetrieverDistiller`, such as `loss`, `epochs`, `update` or `report_to`.
        :param device: Where training runs; None takes the default device.
        :param progress_bar: Whether to show progress on stderr.
        :raises ValueError: If rounds or top_k is below 1, `distiller` has a parameter that the loop sets itself, or a
            reader is to be fine-tuned that labels nothing.
        """
        self.keep_parameters(locals(), positive=("rounds", "top_k"))
        self.distiller = distiller or {}
        taken = sorted(BY_LOOP & set(self.distiller))
        if taken:
            msg = f"`distiller` has {taken[0]!r}, which the loop sets itself or has no use for: leave it out."
            raise ValueError(msg)
        if reader_fine_tuner is not None and scorer is None:
            msg = "`reader_fine_tuner` needs a `scorer`: without one the judgments of the queries are the teacher."
            raise ValueError(msg)

    @component.output_types(model_path=str, metrics=dict[str, Any], report_path=str, rounds=list[dict[str, Any]])
    def run(self, queries: str, judged: str | None = None) -> dict[str, Any]:
        """
        Run the rounds, or what is left of them.

        :param queries: A BEIR folder, a `.jsonl` or `.parquet` file, or the name of a data set.
        :param judged: A BEIR folder whose dev split is selected on and whose test split the proofs are about; None lets
            the teacher judge queries that are held out.
        :returns: `model_path`: the recommended folder, that of `round-0` if no round was better; `metrics` and
            `report_path`: those of the last round; `rounds`: one row a round.
        :raises BlockingIOError: If another process works on the same output.
        :raises ValueError: See `TrainingSetBuilder`, `TeacherLabeller` and `RetrieverDistiller`.
        """
        from haystack_distill.files.runs import LOCK, alone

        embedder, settings = self._settings()
        lock = Path(self.output) / LOCK
        with alone(lock, f"Another process works on {self.output}: wait for it, or name another output."):
            self._claim(queries, judged)
            return self._rounds(embedder, settings, queries, judged)

    def _rounds(
        self, embedder: EmbedderSettings, settings: "RoundSettings", queries: str, judged: str | None
    ) -> dict[str, Any]:
        from haystack_distill.files.folders import write_json
        from haystack_distill.files.layout import REPORT
        from haystack_integrations.components.distill.distillation_round import Round

        folder = Path(self.output)
        current = Round(settings, folder, 0).untouched(embedder)
        rows: list[dict[str, Any]] = []
        metrics: dict[str, Any] = {}
        report = ""
        for number in range(1, self.rounds + 1):
            done = Round(settings, folder, number).run(current, queries, judged)
            metrics, report = done.metrics, str(Path(done.model) / REPORT)
            rows.append(done.row)
            if metrics["recommended"] == "student":
                current = done.model
            write_json(folder / "rounds.json", {"recommended": current, "rounds": rows})
            if current != done.model:
                break
        return {"model_path": current, "metrics": metrics, "report_path": report, "rounds": rows}

    def _settings(self) -> "tuple[EmbedderSettings, RoundSettings]":
        """How the index was embedded, and what every round is told."""
        from haystack_integrations.components.distill.distillation_round import RoundSettings
        from haystack_integrations.components.distill.retriever_distiller import RetrieverDistiller

        store = store_of(self.retriever)
        if store is None:
            msg = f"{type(self.retriever).__name__} has no document store: give the embedding retriever of the index."
            raise ValueError(msg)
        first = RetrieverDistiller(document_store=store, model=self.model, output=self.output, **self.distiller)
        first.settings()  # a setting that does not fit is found out before anything is labelled
        settings = {**self.parameters_of(RoundSettings), "store": store}
        settings["distiller"] = {**self.distiller, **first.embedder.of_saved()}
        return first.embedder, RoundSettings(**settings)

    def _claim(self, queries: str, judged: str | None) -> None:
        """Bind the output to this run: more rounds may be added, and neither place nor bars change a result."""
        from haystack_distill.files.layout import METRICS
        from haystack_distill.files.runs import claim

        folder, free = Path(self.output), {"rounds", "device", "progress_bar"}
        parameters = without_names(self.to_dict())["init_parameters"]
        settings = {name: value for name, value in parameters.items() if name not in free}
        training = {name: value for name, value in self.distiller.items() if name not in BEFORE_TRAINING | WATCHING}
        settings["distiller"] = {name: value for name, value in self.distiller.items() if name in BEFORE_TRAINING}
        claim(folder, {"settings": settings, "queries": queries, "judged": judged})
        # Labels don't depend on how the retriever is trained, so until a round is done that may be changed.
        claim(folder / "training", {"distiller": training}, folder.glob(f"round-*/model/{METRICS}"))
