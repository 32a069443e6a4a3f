from typing import Any

from haystack import component
from haystack.components.embedders.types import DocumentEmbedder
from haystack.document_stores.types import DocumentStore
from haystack.utils import ComponentDevice

from haystack_integrations.components.distill.parts.reembedding import refuse_what_does_not_last
from haystack_integrations.components.distill.parts.serialising import Serialisable
from haystack_integrations.components.distill.stores import EmbedderSettings
from haystack_integrations.components.distill.stores.reading import refuse_to_recreate


@component
class IndexSwitcher(Serialisable):
    """
    Makes a new index with a new document encoder and lets it take over only if it is not worse.

    The documents of the store that serves are embedded anew into another store; both are searched for the same judged
    queries; and if the new one's nDCG@10 is not below the old one's, a small JSON file, the pointer, moves to it in one
    step. `CurrentRetriever` reads that file. The old index is never written to. A run that is killed leaves the pointer
    where it was, and goes on when it is started again.

    ### Usage example

    ```python
    from haystack_distill import IndexSwitcher

    switcher = IndexSwitcher(
        document_store=old_store,
        teacher="models/all-MiniLM-L6-v2",  # the encoder of the old index
        new_document_store=new_store,  # empty
        model="models/distilled",  # a bi-encoder, or a folder with `query` and `document`
        pointer="current.json",
    )
    result = switcher.run(queries="questions")  # a BEIR folder with dev judgments
    print(result["switched"], result["metrics"]["difference"])
    ```
    """

    def __init__(
        self,
        *,
        document_store: DocumentStore,
        teacher: str | DocumentEmbedder,
        new_document_store: DocumentStore,
        model: str,
        pointer: str,
        query_model: str | None = None,
        split: str = "dev",
        max_loss: float = 0.0,
        query_prefix: str | None = None,
        document_prefix: str | None = None,
        normalize_embeddings: bool = False,
        truncate_dim: int | None = None,
        meta_fields_to_embed: list[str] | None = None,
        embedding_separator: str = "\n",
        similarity: str | None = None,
        device: ComponentDevice | None = None,
        num_workers: int = 1,
        progress_bar: bool = True,
    ) -> None:
        """
        Say what is to be replaced by what; nothing is loaded before `run`.

        :param document_store: The index that serves; it is only read.
        :param teacher: The encoder of that index: folder, hub name, or the SentenceTransformersDocumentEmbedder of its
            indexing pipeline, from which all settings that are "as in that document embedder" are then read.
        :param new_document_store: The index to make: empty, or half made by an earlier run of the same.
        :param model: The new encoder, which applies its own prompts: a sentence-transformers folder, or a folder that
            holds two, `query` and `document`.
        :param pointer: The JSON file that says which index serves; made for the old one if it is not there.
        :param query_model: What embeds queries now, if it is not the teacher: a student's folder.
        :param split: The split of the queries whose judgments decide.
        :param max_loss: How much lower the new index's nDCG@10 may be.
        :param query_prefix: Put before every query of the teacher; None takes its own prompt.
        :param document_prefix: As in the document embedder of the old index; None takes the teacher's own prompt.
        :param normalize_embeddings: As in that document embedder.
        :param truncate_dim: As in that document embedder.
        :param meta_fields_to_embed: As in that document embedder; the new index gets the same.
        :param embedding_separator: As in that document embedder; the new index gets the same.
        :param similarity: How the old store ranks; None looks at the order of its results.
        :param device: Where encoders run; None takes the default device.
        :param num_workers: More than 1 embed in that many processes through Ray Data (extra `ray`), on this machine or
            on a cluster; docs/scale.md.
        :param progress_bar: Whether to show progress on stderr.
        :raises ValueError: If the new index can't outlive this process or is the old one, if opening a store would
            empty it, or if the query encoder that serves would lack a setting.
        """
        self.keep_parameters(locals(), positive=("num_workers",))
        self.meta_fields_to_embed = meta_fields_to_embed or []
        self.embedder = EmbedderSettings.of(teacher, **self.parameters_of(EmbedderSettings))
        refuse_what_does_not_last(new_document_store)
        for store in (document_store, new_document_store):
            refuse_to_recreate(store)
        lost = [name for name in ("query_prefix", "truncate_dim") if getattr(self.embedder, name)]
        if lost and query_model is None:
            msg = (
                f"The pointer names the folder of a query encoder, and `{lost[0]}` would be lost to what serves: save "
                "the encoder with it (its prompt, its truncate_dim) and name that folder as `query_model`."
            )
            raise ValueError(msg)
        if new_document_store.to_dict() == document_store.to_dict():
            msg = (
                "`new_document_store` is the index that serves: name another index, collection or path for the new one."
            )
            raise ValueError(msg)

    @component.output_types(switched=bool, metrics=dict[str, Any], pointer=str)
    def run(self, queries: str) -> dict[str, Any]:
        """
        Make the new index, or what is left of it, and let it take over if it is not worse.

        :param queries: A BEIR folder whose judgments use the ids of the document store.
        :returns: `switched`: whether the new index serves now. `metrics`: see
            `haystack_distill.evaluation.switching.judge`; empty if it did already. `pointer`: the file.
        :raises BlockingIOError: If another run works on the same pointer.
        :raises ImportError: If workers need Ray, and Ray is not installed.
        :raises ConnectionError: If the Ray that RAY_ADDRESS names does not answer.
        :raises DocumentStoreError: If a store can't be read to its end.
        :raises FileNotFoundError: If the queries are missing.
        :raises ValueError: If the pointer names another index than the one that is given, the new index holds something
            else, an encoder does not belong to its index, or judgments don't fit.
        """
        # Takes seconds to import, which a pipeline that is only loaded need not wait for.
        from haystack_integrations.components.distill.parts.reindexing import Switch, reindex

        return reindex(Switch(**self.parameters_of(Switch), embedder=self.embedder), queries)
