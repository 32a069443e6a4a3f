from dataclasses import replace
from pathlib import Path
from typing import Any

from haystack import component
from haystack.components.embedders.types import DocumentEmbedder
from haystack.document_stores.types import DocumentStore
from haystack.utils import ComponentDevice

from haystack_integrations.components.distill.parts.serialising import Serialisable, named_callables
from haystack_integrations.components.distill.stores import EmbedderSettings, index_of, teacher_of


@component
class KaleAligner(Serialisable):
    """
    Makes a smaller query encoder for an index that stays as it is.

    It reads the vectors already in a document store, cuts layers out of the encoder that made them (or keeps none: a
    token table), and aligns what is left with the encoder's own query vectors, on queries or on the text of the index
    alone; those of the index's sentences are first moved a little toward the passages they stand in
    (`passage_weight`). Nothing is embedded again and nothing is written to the store. The result is a plain
    sentence-transformers folder with `metrics.json` and `report.html` beside the weights.

    After KALE (arXiv 2304.01016). Beyond the paper: the layers that stay are measured, dropped lower layers are folded
    into the token embeddings, training compares rankings of the index besides vectors, and it knows the passages.

    ### Usage example

    ```python
    from haystack_distill import KaleAligner

    aligner = KaleAligner(
        document_store=document_store,
        teacher="sentence-transformers/all-MiniLM-L6-v2",
        layers=2,
        output="models/minilm-2-layers",
    )
    result = aligner.run()
    print(result["metrics"]["share_of_teacher"], result["metrics"]["speedup"])
    ```
    """

    def __init__(
        self,
        *,
        document_store: DocumentStore,
        teacher: str | DocumentEmbedder,
        output: str,
        student: str | None = None,
        student_prefix: str | None = None,
        update: str | None = None,
        layers: int | None = None,
        keep: list[int] | str | None = None,
        loss: dict[str, float] | None = None,
        temperature: float = 1.0,
        folded: bool = True,
        index_text: bool = True,
        text: list[str] | None = None,
        passage_weight: float = 0.2,
        max_texts: int = 50_000,
        fit: str | None = None,
        epochs: int | None = None,
        batch_size: int = 64,
        learning_rate: float | None = None,
        embedding_learning_rate: float | None = None,
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
        export: list[str] | None = None,
        num_workers: int = 1,
        progress_bar: bool = True,
        report_to: str | list[str] | None = None,
        callbacks: list[Any] | None = None,
    ) -> None:
        """
        Say what is wanted; nothing is loaded before `run`.

        :param document_store: The index.
        :param teacher: The encoder of the index: folder, hub name, or the SentenceTransformersDocumentEmbedder of the
            indexing pipeline, from which all settings that are "as in the document embedder" are then read.
        :param output: The folder to make; it must not exist.
        :param student: Another encoder that is to search this index, folder or hub name: all of it stays, and a linear
            map into the index's space is put behind it. None cuts the teacher.
        :param student_prefix: Put before every query of the student; None takes its own prompt.
        :param update: A student that this component made of the same teacher for this index, folder or hub name: it
            learns the documents that came, or were changed, since, and keeps what it knows of the others. It stays a
            table or so many layers. The folder itself is not changed.
        :param layers: How many layers stay; 0 asks for a token table. None keeps 2, or all of a `student`.
        :param keep: The numbers of the layers that stay, or `kale` for the paper's; None measures which.
        :param loss: Loss name -> weight, of `kale`, `mse`, `cosine` and `index_ranking`; None takes the default.
        :param temperature: The temperature of the `kale` loss.
        :param folded: Whether dropped lower layers are folded into the token embeddings.
        :param index_text: Whether the index's own sentences are aligned on, besides queries.
        :param text: Other texts and queries to align on beside the index, for documents that come later and for other
            indexes of the same teacher: texts, folders of texts, files with a column `text`, or names for the
            `datasets` library.
        :param passage_weight: How far the target of a sentence of the index is moved from the teacher's vector to that
            of the passage it stands in: from 0, the teacher alone, to below 1.
        :param max_texts: The most texts to align on.
        :param fit: `trained`, or, of a token table, `ridge`: the one with the least squared error, in seconds. Then
            `loss`, `epochs` and rates count for nothing. Of a `student`, `ridge` solves for the map alone, and
            `trained` goes on from there. None takes `ridge` for a `student`, and `trained` for all else.
        :param epochs: How often all texts are seen; None fits them into some minutes on two cores.
        :param batch_size: Texts a step; a token table takes twice as many.
        :param learning_rate: Peak rate; None takes what suits the student.
        :param embedding_learning_rate: The rate of the token embeddings; None takes what suits the student.
        :param seed: The seed of order and sampling.
        :param query_prefix: Put before every query; None takes the teacher's own prompt.
        :param document_prefix: As in the document embedder; None takes the teacher's own prompt.
        :param normalize_embeddings: As in the document embedder.
        :param truncate_dim: As in the document embedder.
        :param meta_fields_to_embed: As in the document embedder.
        :param embedding_separator: As in the document embedder.
        :param similarity: How the store ranks: `cosine`, `dot_product` or `euclidean`; None finds out.
        :param max_documents: Where the index is larger, about this many documents serve, and all that are judged:
            memory then does not grow with the index. They are chosen by their ids, and figures are about them.
        :param device: Where training runs; None takes the default device.
        :param export: Exports to make beside the student for faster serving: `onnx-fp32`, `onnx-int8`,
            `openvino-fp32`, `openvino-int8` or `torch-int8`. None that loses 1 % of the dev nDCG@10 is written.
        :param num_workers: More than 1 read the texts to align on in that many processes through Ray Data (extra
            `ray`), on this machine or on a cluster; docs/scale.md.
        :param progress_bar: Whether to show progress on stderr.
        :param report_to: Where figures of the training go too: `wandb`, `mlflow`, `tensorboard` or whatever else
            transformers reports to.
        :param callbacks: transformers' `TrainerCallback`s; in YAML the import paths of their classes.
        """
        self.keep_parameters(locals(), positive=("num_workers",))
        self.meta_fields_to_embed = meta_fields_to_embed or []
        self.export = export or []
        self.text = text or []
        self.callbacks = named_callables(callbacks)
        self.embedder = EmbedderSettings.of(teacher, **self.parameters_of(EmbedderSettings))
        self.loaded: Any = None  # the teacher, set by whoever has it in memory already

    @component.output_types(model_path=str, metrics=dict[str, Any], report_path=str)
    def run(self, queries: str | None = None, test: str | None = None) -> dict[str, Any]:
        """
        Align, measure and write the student.

        A killed run goes on from its last checkpoint when it is run again with the same settings.

        :param queries: A BEIR folder (aligns on its train queries, selects on its dev split) or a JSONL file of
            queries with `_id` and `text`. None aligns on the index alone.
        :param test: A BEIR folder whose test split the proof is measured on. None measures on sentences of the index
            that were held out, judged by the passages they stand in.
        :returns: `model_path`: the new folder; `metrics`: the content of its metrics.json; `report_path`: its report.
        :raises FileExistsError: If the output folder exists.
        :raises FileNotFoundError: If a path is missing.
        :raises ValueError: If the store is empty or its vectors are unusable, if encoder and index don't belong
            together, if a setting does not fit, or if an export loses too much; the student is there all the same.
        :raises ImportError: If a package that an export needs is missing, or Ray; found out before training.
        :raises ConnectionError: If the Ray that RAY_ADDRESS names does not answer.
        """
        # Training libraries take seconds to import: a query pipeline that only reads this module does not need them.
        from haystack_distill.align.proof import align_and_prove
        from haystack_distill.align.update import Earlier
        from haystack_distill.data.beir import judged_documents
        from haystack_distill.data.general_text import read_general_text
        from haystack_distill.evaluation.dev_set import read_dev_set
        from haystack_distill.files.bulk import check_workers
        from haystack_distill.files.layout import REPORT
        from haystack_distill.files.processes import first_process_first, process_number
        from haystack_distill.files.runs import running
        from haystack_distill.serving.backends import split_name
        from haystack_distill.serving.export import check_can_export, export
        from haystack_distill.serving.hub import local_folder
        from haystack_distill.training.watching import watched_by

        settings = self.settings()
        check_workers(self.num_workers)
        earlier = Earlier.load(self.update, Path(local_folder(self.update))) if self.update else None
        for name, given in (("queries", queries), ("text", self.text)):
            if earlier and given:
                msg = f"{self.update} learns what is new in the index: leave `{name}` out, or `update`."
                raise ValueError(msg)
        table = earlier.is_table if earlier else settings.is_table
        check_can_export(self.export, 0 if table else 1)
        text = read_general_text(self.text)
        judged = judged_documents(queries, test)
        output = Path(self.output)
        another = None
        if self.student:  # one that is nowhere is known before the index is read
            another = self._encoder(EmbedderSettings(self.student, query_prefix=self.student_prefix))
        with watched_by(self.output, self.report_to, self.callbacks), running(output) as workspace:
            cpu = ComponentDevice.resolve_device(self.device).to_torch_str() == "cpu"
            with first_process_first(cpu=cpu):  # documents of a folder are embedded by one
                copy = workspace / f"index-{process_number()}"
                index = index_of(self.document_store, self.embedder, copy, judged, self.max_documents)
            teacher = self._encoder(self.embedder, self.loaded)
            metrics = align_and_prove(
                index,
                teacher,
                self.embedder.model,
                settings,
                output,
                workspace,
                queries,
                test,
                another=another,
                earlier=earlier,
                text=text,
                progress=self.progress_bar,
            )
            for name in self.export if not process_number() else ():
                if not (output / name).exists():  # a run that was killed while it exported has made some
                    export(output, *split_name(name), read_dev_set(output))
        return {"model_path": self.output, "metrics": metrics, "report_path": str(output / REPORT)}

    def _encoder(self, embedder: EmbedderSettings, loaded: Any = None) -> Any:
        return replace(loaded or teacher_of(embedder, self.device), num_workers=self.num_workers)

    def settings(self) -> Any:
        """What the engine is told; a ValueError if a setting is wrong, before anything is loaded."""
        from haystack_distill.align.settings import DEFAULT_LOSS, KaleSettings
        from haystack_distill.align.training import TrainingSettings

        given = self.parameters_of(KaleSettings)
        given["keep"] = tuple(self.keep) if isinstance(self.keep, list) else self.keep
        given["loss"] = self.loss or DEFAULT_LOSS
        return KaleSettings(**given, training=TrainingSettings(**self.parameters_of(TrainingSettings)))
