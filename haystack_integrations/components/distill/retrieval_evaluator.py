from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from haystack import component
from haystack.components.embedders.types import DocumentEmbedder
from haystack.document_stores.types import DocumentStore
from haystack.utils import ComponentDevice

from haystack_distill.fusion.model import Fusion
from haystack_integrations.components.distill.parts.inner import close, warm_up
from haystack_integrations.components.distill.parts.searching import check_take_text, searches
from haystack_integrations.components.distill.parts.serialising import Serialisable
from haystack_integrations.components.distill.stores import EmbedderSettings, index_of, teacher_of
from haystack_integrations.components.distill.stores.known import kind_of

RESERVED = frozenset(
    "teacher share_of_teacher share_low share_high speedup significance queries seed versions hybrids "
    "recovery_advice".split()
)
"""Keys of `metrics.json`, where each student gets a key of its own."""


@component
class RetrievalEvaluator(Serialisable):
    """
    Measures query encoders against one index: quality with intervals and significance, and latency, side by side.

    Every encoder is compared with the teacher, the encoder that made the index, on the same judged queries and by exact
    search over the vectors in the store, so that no approximation of the store hides a difference. How much of that the
    store itself returns is measured beside it (`recovery`), where its search may be approximate. With a fusion that
    `FusionDistiller` wrote, each is also measured in that hybrid, beside reciprocal rank fusion.

    ### Usage example

    ```python
    from haystack_distill import RetrievalEvaluator

    evaluator = RetrievalEvaluator(
        document_store=document_store,
        teacher="sentence-transformers/all-MiniLM-L6-v2",
        students={"two layers": "models/minilm-2-layers", "table": "models/minilm-table"},
        output="evaluation",
    )
    result = evaluator.run(queries="questions")  # a BEIR folder with a test split
    ```
    """

    def __init__(
        self,
        *,
        document_store: DocumentStore,
        teacher: str | DocumentEmbedder,
        students: dict[str, str],
        output: str,
        split: str = "test",
        retrievers: dict[str, Any] | None = None,
        fusion: str | None = None,
        query_prefix: str | None = None,
        document_prefix: str | None = None,
        normalize_embeddings: bool = False,
        truncate_dim: int | None = None,
        meta_fields_to_embed: list[str] | None = None,
        embedding_separator: str = "\n",
        similarity: str | None = None,
        device: ComponentDevice | None = None,
        seed: int = 0,
    ) -> None:
        """
        Say what to compare; nothing is loaded before `run`.

        :param document_store: The index.
        :param teacher: The encoder of the index: folder, hub name, or the SentenceTransformersDocumentEmbedder of the
            indexing pipeline, from which all settings that are "as in the document embedder" are then read.
        :param students: Name -> folder of a student; the report puts the last one first.
        :param output: The folder to write `metrics.json` and `report.html` to; it must not exist.
        :param split: Which judgments of the BEIR folder to use.
        :param retrievers: Name -> text retriever, such as a keyword retriever: what each encoder is joined with. These
            are all that the fusion was fitted for, under the same names, but the one whose place the encoder takes.
        :param fusion: The folder that `FusionDistiller` wrote; None measures each encoder alone.
        :param query_prefix: Put before every query of the teacher; None takes its own prompt.
        :param document_prefix: As in the document embedder; None takes the teacher's own prompt.
        :param normalize_embeddings: As in the document embedder.
        :param truncate_dim: As in the document embedder.
        :param meta_fields_to_embed: As in the document embedder.
        :param embedding_separator: As in the document embedder.
        :param similarity: How the store ranks; None looks at the order of its results.
        :param device: Where encoders run; None takes the default device.
        :param seed: The seed of the resampling.
        :raises ValueError: If no student is named, a student or retriever has a name that `metrics.json` has another
            use for, or only one of `retrievers` and `fusion` is given.
        """
        taken = RESERVED | {*(retrievers or {})}
        if not students or not taken.isdisjoint(students):
            msg = f"Name at least one student, and none of them {', '.join(sorted(taken))}: metrics.json uses these."
            raise ValueError(msg)
        if bool(retrievers) != bool(fusion):
            msg = "A hybrid needs both the folder of its fusion and the retrievers that encoders are joined with."
            raise ValueError(msg)
        if "teacher" in (retrievers or {}):
            msg = "A retriever can't be called 'teacher', which is the encoder of the index: rename it."
            raise ValueError(msg)
        check_take_text(retrievers or {})
        self.loaded: Any = None  # the teacher, set by whoever has it in memory already
        self.keep_parameters(locals())
        self.meta_fields_to_embed = meta_fields_to_embed or []
        self.embedder = EmbedderSettings.of(teacher, **self.parameters_of(EmbedderSettings))

    @component.output_types(metrics=dict[str, Any], report_path=str)
    def run(self, queries: str) -> dict[str, Any]:
        """
        Compare the encoders.

        :param queries: A BEIR folder whose judgments use the ids of the document store.
        :returns: `metrics`: figures of every encoder; of the last student its share, speed-up and significance.
            `report_path`: the page.
        :raises FileNotFoundError: If the folder, a student or the fusion is missing.
        :raises FileExistsError: If the output folder exists.
        :raises ValueError: If a student's vectors have other dimensions than the index, judgments don't fit it, or the
            fusion was fitted for other retrievers.
        """
        from haystack_distill.evaluation.students import evaluate_students
        from haystack_distill.files.folders import refuse_existing
        from haystack_distill.files.layout import REPORT

        refuse_existing(self.output)
        hybrid = self._hybrid()
        with TemporaryDirectory(prefix="haystack-distill-", ignore_cleanup_errors=True) as copy:
            index = index_of(self.document_store, self.embedder, Path(copy) / "index")
            teacher = self.loaded or teacher_of(self.embedder, self.device)
            metrics = evaluate_students(
                index,
                teacher,
                self.embedder.model,
                self.students,
                queries,
                self.split,
                Path(self.output),
                self.seed,
                hybrid,
                self._store_search(),
            )
        return {"metrics": metrics, "report_path": str(Path(self.output) / REPORT)}

    def _store_search(self) -> Any:
        """How the store searches, where that may be approximate."""
        from haystack_distill.evaluation.recovery import StoreSearch

        kind = kind_of(self.document_store)
        search = kind.search(self.document_store)
        if not (search and kind.effort):
            return None
        return StoreSearch(lambda vector, top_k: [found.id for found in search(vector, top_k)], kind.effort)

    def _hybrid(self) -> Any:
        """What the encoders are joined with, if they are."""
        if not self.fusion:
            return None
        from haystack_distill.fusion.hybrids import hybrid_of

        fusion = Fusion.load(self.fusion)
        hybrid = hybrid_of(fusion, self.fusion, searches(self.retrievers, fusion.top_k))
        warm_up(*self.retrievers.values())
        return hybrid

    def close(self) -> None:
        """Close the retrievers."""
        close(*(self.retrievers or {}).values())
