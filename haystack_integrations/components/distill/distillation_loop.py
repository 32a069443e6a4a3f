# SPDX-FileCopyrightText: 2026-present haystack-distill contributors
#
# SPDX-License-Identifier: Apache-2.0

from pathlib import Path
from typing import Any

from haystack import component, default_from_dict, default_to_dict
from haystack.core.serialization import component_to_dict
from haystack.utils import ComponentDevice

from haystack_integrations.components.distill.stores import store_of

TRAINING = (
    "loss",
    "teacher_temperature",
    "target_entropy",
    "student_temperature",
    "passages",
    "epochs",
    "batch_size",
    "learning_rate",
    "lora_rank",
    "seed",
)
"""Parameters of the distiller that neither candidates nor labels depend on."""


@component
class DistillationLoop:
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
        model: str,
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
        :param model: The query encoder to train: folder or hub name.
        :param output: The folder of the rounds; it may exist if it is of the same settings.
        :param scorer: The teacher: a scorer or any ranker, see `TeacherLabeller`. None takes the queries' judgments
            for it, made by people or by `GenerativeAugmenter`, see `TrainingSetBuilder`.
        :param rounds: How many at most.
        :param first_retriever: Finds the candidates of the first round, such as a BM25 retriever.
        :param reader_fine_tuner: A `ReaderFineTuner`: trains the reader on each round's candidates before it labels
            them, always from its own model, as the paper does; the scorer then uses what it made.
        :param top_k: How many candidates a query gets.
        :param split: Of a BEIR folder or data set, whose queries are learnt from.
        :param distiller: Init parameters of `RetrieverDistiller`, such as `loss`, `epochs` or `update`.
        :param device: Where training runs; None takes the default device.
        :param progress_bar: Whether to show progress on stderr.
        :raises ValueError: If rounds or top_k is below 1, `distiller` has a parameter that the loop sets itself, or a
            reader is to be fine-tuned that labels nothing.
        """
        if min(int(rounds), int(top_k)) < 1:
            msg = f"rounds={rounds} and top_k={top_k} must be at least 1."
            raise ValueError(msg)
        taken = {"document_store", "model", "output", "device", "progress_bar", "asymmetric"}
        own = sorted(taken & set(distiller or {}))
        if own:
            msg = f"`distiller` has {own[0]!r}, which the loop sets itself or has no use for: leave it out."
            raise ValueError(msg)
        if reader_fine_tuner is not None and scorer is None:
            msg = "`reader_fine_tuner` needs a `scorer`: without one the judgments of the queries are the teacher."
            raise ValueError(msg)
        self.retriever = retriever
        self.model = model
        self.scorer = scorer
        self.output = output
        self.rounds = int(rounds)
        self.first_retriever = first_retriever
        self.reader_fine_tuner = reader_fine_tuner
        self.top_k = int(top_k)
        self.split = split
        self.distiller = distiller or {}
        self.device = device
        self.progress_bar = progress_bar

    @component.output_types(model_path=str, metrics=dict[str, Any], report_path=str, rounds=list[dict[str, Any]])
    def run(self, queries: str, judged: str | None = None) -> dict[str, Any]:
        """
        Run the rounds, or what is left of them.

        :param queries: A BEIR folder, a `.jsonl` or `.parquet` file, or the name of a data set.
        :param judged: A BEIR folder whose dev split is selected on and whose test split the proofs are about; None lets
            the teacher judge queries that are held out.
        :returns: `model_path`: the recommended folder, that of `round-0` if no round was better; `metrics` and
            `report_path`: of the last round; `rounds`: one row a round.
        :raises ValueError: See `TrainingSetBuilder`, `TeacherLabeller` and `RetrieverDistiller`.
        """
        from haystack_distill.files.folders import claim, write_json
        from haystack_integrations.components.distill.distillation_round import Round

        folder = Path(self.output)
        start = Round(self, folder, number=0)
        start.distiller(self.model).settings()  # a setting that does not fit is found out before anything is labelled
        settings = self._claimed()
        training = {name: settings["distiller"].pop(name) for name in TRAINING if name in settings["distiller"]}
        claim(folder, {"settings": settings, "queries": queries, "judged": judged})
        # Labels don't depend on how the retriever is trained, so until a round is done that may be changed.
        claim(folder / "training", {"distiller": training}, folder.glob("round-*/model/metrics.json"))
        current = start.untouched()
        rows: list[dict[str, Any]] = []
        metrics: dict[str, Any] = {}
        report = ""
        for number in range(1, self.rounds + 1):
            done = Round(self, folder, number).run(current, queries, judged)
            metrics, report = done.metrics, str(Path(done.model) / "report.html")
            rows.append(done.row)
            if metrics["recommended"] == "student":
                current = done.model
            write_json(folder / "rounds.json", {"recommended": current, "rounds": rows})
            if current != done.model:
                break
        return {"model_path": current, "metrics": metrics, "report_path": report, "rounds": rows}

    def _claimed(self) -> dict[str, Any]:
        from haystack_integrations.components.distill.training_set_builder import without_names

        parameters = without_names(self.to_dict())["init_parameters"]
        # More rounds may be added, and neither place nor bars change a result.
        return {name: value for name, value in parameters.items() if name not in {"rounds", "device", "progress_bar"}}

    def store(self) -> Any:
        """
        The index.

        :returns: The document store of the retriever.
        :raises ValueError: If it has none.
        """
        store = store_of(self.retriever)
        if store is None:
            msg = f"{type(self.retriever).__name__} has no document store: give the embedding retriever of the index."
            raise ValueError(msg)
        return store

    def to_dict(self) -> dict[str, Any]:
        """
        Serialise this component.

        :returns: Its type and init parameters.
        """
        parts = ("retriever", "scorer", "first_retriever", "reader_fine_tuner")
        own = {name: value for name, value in vars(self).items() if not name.startswith("_")}
        own |= {name: component_to_dict(own[name], name) if own[name] is not None else None for name in parts}
        return default_to_dict(self, **{**own, "device": self.device.to_dict() if self.device else None})

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> "DistillationLoop":
        """
        Restore this component.

        :param data: What `to_dict` returned.
        :returns: The component.
        """
        return default_from_dict(cls, data)
