"""One round of the loop, in its own folder; each step finds what an earlier, killed run left of it."""

import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from haystack import Document
from haystack.components.retrievers.in_memory import InMemoryEmbeddingRetriever
from haystack.core.serialization import component_from_dict, component_to_dict
from haystack.document_stores.in_memory import InMemoryDocumentStore
from haystack.utils import ComponentDevice

from haystack_distill.files.layout import CARD, METRICS
from haystack_distill.files.processes import first_process_first, process_number
from haystack_distill.files.runs import workspace_of
from haystack_integrations.components.distill.distilled_retriever import DistilledRetriever
from haystack_integrations.components.distill.kale_query_encoder import KaleQueryEncoder
from haystack_integrations.components.distill.retriever_distiller import RetrieverDistiller
from haystack_integrations.components.distill.stores import EmbedderSettings, index_of, teacher_of
from haystack_integrations.components.distill.teacher_labeller import TeacherLabeller
from haystack_integrations.components.distill.training_set_builder import TrainingSetBuilder


@dataclass(frozen=True)
class RoundSettings:
    """What every round is told: the store, and init parameters of `DistillationLoop`, which explains them."""

    store: Any
    retriever: Any
    first_retriever: Any
    scorer: Any
    reader_fine_tuner: Any
    top_k: int
    split: str
    distiller: dict[str, Any]  # of `RetrieverDistiller`, for models that an earlier round saved
    device: ComponentDevice | None
    progress_bar: bool


@dataclass(frozen=True)
class Done:
    """A finished round: the folder of its model, the content of its `metrics.json`, and what the loop says of it."""

    model: str
    metrics: dict[str, Any]
    row: dict[str, Any]


class Round:
    """A round, in its folder below that of the loop; number 0 is the retriever as it was."""

    def __init__(self, settings: RoundSettings, folder: Path, number: int) -> None:
        self.settings = settings
        self.number = number
        self.folder = folder / f"round-{number}"

    def untouched(self, embedder: EmbedderSettings) -> str:
        """Save the encoder of the index as it is searched with, its settings baked in, and return the folder."""
        from haystack_distill.distill.proof import open_student
        from haystack_distill.evaluation.card import Card, card_of
        from haystack_distill.files.folders import published

        model = self.folder / "model"
        with first_process_first(cpu=self._on_cpu()):
            if not model.is_dir():
                student = open_student(teacher_of(embedder, self.settings.device), embedder.model)
                with published(model) as unfinished:
                    student.save(str(unfinished), create_model_card=False)
                    said = ["It is what the rounds began with, with the settings of the index in it."]
                    card = card_of(model, Card("A retriever as it was", "retriever", said, embedder.model))
                    (unfinished / CARD).write_text(card, encoding="utf-8")
        return str(model)

    def run(self, current: str, queries: str, judged: str | None) -> Done:
        """Retrieve, label and train, beginning with the encoder in the folder `current`; see `DistillationLoop.run`."""
        model, summary = self.folder / "model", self.folder / "labels.json"
        if not (model / METRICS).is_file() or workspace_of(model).exists():  # killed before it was made, or after
            self.folder.mkdir(exist_ok=True)
            with first_process_first(cpu=self._on_cpu()):
                training_set = self._training_set(current, queries)
                if not summary.is_file():
                    self._label(training_set, summary)
                index = self._index(current)
            self._distiller(index, current, model).run(training_set=training_set, judged=judged)
        metrics = json.loads((model / METRICS).read_text(encoding="utf-8"))
        labels = json.loads(summary.read_text(encoding="utf-8"))
        row = {
            "round": self.number,
            "model": str(model),
            "recommended": metrics["recommended"],
            **metrics["dev"],
            "untouched": metrics["untouched"]["ndcg@10"],
            "student": metrics["student"]["ndcg@10"],
            "first_agrees": labels["first_agrees"],
            "training_seconds": metrics["training_seconds"],
        }
        return Done(str(model), metrics, row)

    def _training_set(self, current: str, queries: str) -> str:
        first = self.settings.first_retriever if self.number == 1 else None
        if first is None:
            index = self._index(current)
            search = self.settings.retriever if index is self.settings.store else InMemoryEmbeddingRetriever(index)
            encoder = KaleQueryEncoder(model=current, backend="torch")
            first = DistilledRetriever(retriever=search, query_encoder=encoder)
        builder = TrainingSetBuilder(
            retriever=first,
            top_k=self.settings.top_k,
            split=self.settings.split,
            output=str(self.folder / "training_set"),
            similarity=self.settings.distiller.get("similarity"),
            judgments=self.settings.scorer is None,
            progress_bar=self.settings.progress_bar,
        )
        return builder.run(queries=queries)["training_set"]

    def _label(self, training_set: str, summary: Path) -> None:
        from haystack_distill.data.training_set import TrainingSet
        from haystack_distill.files.folders import write_json
        from haystack_distill.teachers.labelling import summary_of

        scorer = self.settings.scorer
        if scorer is None:
            write_json(summary, summary_of(TrainingSet.open(training_set)))
            return
        if self.settings.reader_fine_tuner is not None:
            reader = str(self.folder / "reader")
            if not Path(reader).is_dir():
                _changed(self.settings.reader_fine_tuner, output=reader).run(training_set=training_set)
            scorer = _changed(scorer, model=reader)
        labeller = TeacherLabeller(scorer=scorer, progress_bar=self.settings.progress_bar)
        write_json(summary, labeller.run(training_set=training_set)["summary"])
        labeller.close()  # the reader's memory is needed for training

    def _distiller(self, store: Any, model: str, output: Path) -> RetrieverDistiller:
        return RetrieverDistiller(
            document_store=store,
            model=model,
            output=str(output),
            device=self.settings.device,
            progress_bar=self.settings.progress_bar,
            **self.settings.distiller,
        )

    def _on_cpu(self) -> bool:
        return ComponentDevice.resolve_device(self.settings.device).to_torch_str() == "cpu"

    def _index(self, current: str) -> Any:
        """The store, or in memory what it will hold once its documents are embedded with the current model."""
        if self.settings.distiller.get("update") != "both" or self.number == 1:
            return self.settings.store
        if not hasattr(self, "_moved"):
            self._moved = self._embedded_again(current)
        return self._moved

    def _embedded_again(self, current: str) -> InMemoryDocumentStore:
        import numpy as np
        from sentence_transformers import SentenceTransformer

        from haystack_distill.data.index import stored_vectors

        copy = self.folder / f"index-{process_number()}"
        distiller = self._distiller(self.settings.store, current, self.folder)
        view = index_of(self.settings.store, distiller.embedder, copy, max_documents=distiller.max_documents)
        encoder = SentenceTransformer(
            current, device=ComponentDevice.resolve_device(self.settings.device).to_torch_str(), local_files_only=True
        )
        vectors = stored_vectors(
            self.folder / "document_vectors.npy",
            [current, view.fingerprint],
            lambda: np.asarray(
                encoder.encode_document(view.texts, batch_size=32, show_progress_bar=self.settings.progress_bar),
                dtype=np.float32,
            ),
        )
        similarity: Any = "cosine" if view.similarity == "cosine" else "dot_product"
        store = InMemoryDocumentStore(embedding_similarity_function=similarity)
        rows = zip(view.ids, view.texts, vectors, strict=True)
        store.write_documents([Document(id=key, content=text, embedding=row.tolist()) for key, text, row in rows])
        shutil.rmtree(copy)
        return store


def _changed(part: Any, **parameters: Any) -> Any:
    """The same component with other init parameters."""
    data = component_to_dict(part, "part")
    data["init_parameters"] |= parameters
    return component_from_dict(type(part), data, "part")
