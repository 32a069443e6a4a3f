from pathlib import Path
from typing import Any

from haystack import component
from haystack.components.embedders.types import DocumentEmbedder
from haystack.document_stores.types import DocumentStore
from haystack.utils import ComponentDevice

from haystack_integrations.components.distill.parts.serialising import Serialisable, named_callables
from haystack_integrations.components.distill.stores import EmbedderSettings, index_of, teacher_of


@component
class RetrieverDistiller(Serialisable):
    """
    Trains a retriever on what a teacher thinks of the passages it finds: DKRR (arXiv 2012.04584), without labels.

    With `update="query"` only the query encoder moves: the index stays as it is and nothing is embedded again. With
    `update="both"` documents move too; the index must be made again with the result, see pipelines/reindex.yaml. The
    result is a plain sentence-transformers folder with `metrics.json` and `report.html` beside the weights. If it is no
    better on dev, `metrics["recommended"]` stays `untouched`.

    Query encoders that `KaleAligner` made are trained the same way.

    ### Usage example

    ```python
    from haystack_distill import RetrieverDistiller

    distiller = RetrieverDistiller(
        document_store=document_store,
        model="sentence-transformers/all-MiniLM-L6-v2",
        output="models/minilm-distilled",
    )
    result = distiller.run(training_set="training_set")
    print(result["metrics"]["recommended"], result["metrics"]["dev"])
    ```
    """

    def __init__(
        self,
        *,
        document_store: DocumentStore,
        model: str | DocumentEmbedder,
        output: str,
        update: str = "query",
        asymmetric: dict[str, int] | None = None,
        loss: dict[str, float] | None = None,
        teacher_temperature: float | str = "entropy",
        target_entropy: float = 0.3,
        student_temperature: float = 0.05,
        passages: int | None = None,
        epochs: int = 4,
        batch_size: int = 32,
        learning_rate: float | None = None,
        lora_rank: int = 0,
        seed: int = 0,
        query_prefix: str | None = None,
        document_prefix: str | None = None,
        normalize_embeddings: bool = False,
        truncate_dim: int | None = None,
        meta_fields_to_embed: list[str] | None = None,
        embedding_separator: str = "\n",
        similarity: str | None = None,
        max_documents: int = 100_000,
        device: ComponentDevice | None = None,
        progress_bar: bool = True,
        report_to: str | list[str] | None = None,
        callbacks: list[Any] | None = None,
    ) -> None:
        """
        Say what is wanted; nothing is loaded before `run`.

        :param document_store: The index.
        :param model: The query encoder to train, with `update="both"` the encoder of both sides: folder, hub name, or
            the SentenceTransformersDocumentEmbedder of the indexing pipeline, from which all settings that are "as in
            the document embedder" are then read.
        :param output: The folder to make; it must not exist.
        :param update: `query` or `both`.
        :param asymmetric: `query_layers` and `document_layers`: cuts two encoders of these depths out of the model and
            trains both on the teacher's favourites, contrastively; `output` then holds the plain folders `query` and
            `document`, and the index must be made again. `update`, `loss` and temperatures don't count.
        :param loss: Loss name -> weight, of `kl`, `listwise`, `margin_mse`, `emdr2` and `contrastive`; None takes the
            default.
        :param teacher_temperature: Divides the teacher's scores; `entropy` sets it from `target_entropy`.
        :param target_entropy: Mean entropy of the teacher's distributions, as a share of the largest possible.
        :param student_temperature: Divides the student's scores, for vectors of length 1.
        :param passages: Candidates of each query that are used; None uses all.
        :param epochs: How often all queries are seen; the best epoch on dev is kept.
        :param batch_size: Queries a step, over all processes.
        :param learning_rate: Peak rate, falling linearly to 0; None takes what suits the student.
        :param lora_rank: Above 0 trains LoRA adapters of this rank (extra `lora`), merged at the end; not with
            `asymmetric`.
        :param seed: The seed of order and sampling.
        :param query_prefix: Put before every query; None takes the model's own prompt.
        :param document_prefix: As in the document embedder; None takes the model's own prompt.
        :param normalize_embeddings: As in the document embedder.
        :param truncate_dim: As in the document embedder.
        :param meta_fields_to_embed: As in the document embedder.
        :param embedding_separator: As in the document embedder.
        :param similarity: How the store ranks: `cosine`, `dot_product` or `euclidean`; None finds out.
        :param max_documents: Where the index is larger, about this many documents serve, and all that are candidates or
            judged.
        :param device: Where training runs; None takes the default device.
        :param progress_bar: Whether to show progress on stderr.
        :param report_to: Where figures of the training go too: `wandb`, `mlflow`, `tensorboard` or whatever else
            transformers reports to.
        :param callbacks: transformers' `TrainerCallback`s; in YAML the import paths of their classes.
        """
        self.keep_parameters(locals())
        self.meta_fields_to_embed = meta_fields_to_embed or []
        self.callbacks = named_callables(callbacks)
        self.embedder = EmbedderSettings.of(model, **self.parameters_of(EmbedderSettings))
        if teacher_temperature != "entropy":
            self.teacher_temperature = float(teacher_temperature)

    @component.output_types(model_path=str, metrics=dict[str, Any], report_path=str)
    def run(self, training_set: str, judged: str | None = None) -> dict[str, Any]:
        """
        Train, measure and write the retriever. A killed run goes on from its last checkpoint.

        :param training_set: A labelled training set.
        :param judged: A BEIR folder whose dev split is selected on and whose test split the proof is about. None holds
            some of the training set out, judged by the teacher: no label is needed.
        :returns: `model_path`: the new folder; `metrics`: the content of its metrics.json; `report_path`: its report.
        :raises FileExistsError: If the output folder exists.
        :raises FileNotFoundError: If a path is missing.
        :raises ImportError: If LoRA is asked for and peft is not installed.
        :raises ValueError: If the set is not labelled, teaches nothing or belongs to other vectors, if a setting is
            wrong, or if the loss diverges at once.
        """
        from haystack_distill.data.beir import judged_documents
        from haystack_distill.data.training_set import TrainingSet
        from haystack_distill.distill.pair_proof import train_and_prove_pair
        from haystack_distill.distill.proof import distill_and_prove
        from haystack_distill.files.layout import REPORT
        from haystack_distill.files.processes import process_number
        from haystack_distill.files.runs import running
        from haystack_distill.students.bi_encoder import BiEncoder
        from haystack_distill.training.watching import watched_by

        settings = self.settings()
        opened = TrainingSet.open(training_set)
        candidates = {document_id for row in opened for document_id in row.document_ids}
        prove: Any = train_and_prove_pair if self.asymmetric else distill_and_prove
        output, name = Path(self.output), self.embedder.model
        with watched_by(self.output, self.report_to, self.callbacks), running(output) as workspace:
            copy = workspace / f"index-{process_number()}"
            held = candidates | set(judged_documents(judged))
            index = index_of(self.document_store, self.embedder, copy, held, self.max_documents)
            encoder: BiEncoder = teacher_of(self.embedder, self.device)
            metrics = prove(
                encoder, name, opened, index, settings, output, workspace, judged, progress=self.progress_bar
            )
        return {"model_path": self.output, "metrics": metrics, "report_path": str(output / REPORT)}

    def settings(self) -> Any:
        """What the engine is told; a ValueError if a setting is wrong, before anything is loaded."""
        from haystack_distill.distill.job import DistillationSettings
        from haystack_distill.distill.pair import AsymmetricSettings
        from haystack_distill.distill.pair_training import AsymmetricTraining
        from haystack_distill.distill.training import RetrieverTraining
        from haystack_distill.training.watching import trackers

        trackers(self.report_to)
        if self.asymmetric:
            if self.lora_rank:
                msg = "lora_rank is for one encoder; two of different depth move all their weights: use lora_rank=0."
                raise ValueError(msg)
            unknown = sorted(set(self.asymmetric) ^ {"query_layers", "document_layers"})
            if unknown:
                msg = f"`asymmetric` needs query_layers and document_layers, and nothing else: see {unknown[0]!r}."
                raise ValueError(msg)
            rate: Any = {} if self.learning_rate is None else {"learning_rate": self.learning_rate}
            pair = AsymmetricTraining(epochs=self.epochs, batch_size=self.batch_size, seed=self.seed, **rate)
            return AsymmetricSettings(**{name: int(value) for name, value in self.asymmetric.items()}, training=pair)
        given = self.parameters_of(DistillationSettings)
        if not self.loss:
            del given["loss"]
        return DistillationSettings(**given, training=RetrieverTraining(**self.parameters_of(RetrieverTraining)))
