from functools import partial
from pathlib import Path
from typing import Any

from haystack import component
from haystack.core.serialization import component_from_dict, component_to_dict, import_class_by_name

from haystack_integrations.components.distill.parts.candidates import CandidateSearch
from haystack_integrations.components.distill.parts.inner import close, warm_up
from haystack_integrations.components.distill.parts.serialising import Serialisable, without_names
from haystack_integrations.components.distill.stores.reading import refuse_to_recreate


@component
class TrainingSetBuilder(Serialisable):
    """
    Turns queries into a training set: what the retriever finds for each of them, ready for a teacher.

    Any retriever serves: a text retriever (`DistilledRetriever`, BM25, hybrid ones), or an embedding retriever with its
    `text_embedder`. Retriever scores are computed from the vectors, since stores disagree on the sign of
    `Document.score`; where there are no vectors they are reciprocal ranks, and the set's `similarity` says so. A killed
    run goes on where it was.

    ### Usage example

    ```python
    from haystack.components.retrievers.in_memory import InMemoryBM25Retriever
    from haystack_distill import TrainingSetBuilder

    builder = TrainingSetBuilder(retriever=InMemoryBM25Retriever(document_store), top_k=8, output="training_set")
    folder = builder.run(queries="questions.jsonl")["training_set"]
    ```
    """

    def __init__(
        self,
        *,
        retriever: Any,
        output: str,
        text_embedder: Any = None,
        top_k: int = 20,
        split: str = "train",
        similarity: str | None = None,
        judgments: bool = False,
        shard_rows: int = 1000,
        num_workers: int = 1,
        progress_bar: bool = True,
    ) -> None:
        """
        Say what searches; nothing is loaded before `run`.

        :param retriever: A text retriever, or an embedding retriever.
        :param output: The folder to make; one that is there already is kept if it is of the same queries and settings.
        :param text_embedder: The query encoder, if the retriever is an embedding retriever.
        :param top_k: How many documents a query gets.
        :param split: The split of a BEIR folder or data set whose queries are taken.
        :param similarity: How the store ranks, where it does not say: `cosine`, `dot_product` or `euclidean`.
        :param judgments: Whether the judgments of the queries are the teacher: relevant documents stand among the
            candidates, found or not, and the grades are the scores, so no reader is needed. This serves judged queries
            and generated ones (`GenerativeAugmenter`), whose relevant document is the one they were written for.
        :param shard_rows: How many queries a file of the set holds; a worker searches for so many at a time.
        :param num_workers: More than 1 search in that many processes through Ray Data (extra `ray`), on this machine or
            on a cluster; docs/scale.md. Each opens the document store, which must be one that several processes can.
        :param progress_bar: Whether to show progress on stderr.
        :raises ValueError: If top_k, shard_rows or num_workers is below 1.
        """
        self.keep_parameters(locals(), positive=("top_k", "shard_rows", "num_workers"))

    @component.output_types(training_set=str, rows=int)
    def run(self, queries: str) -> dict[str, Any]:
        """
        Build the training set.

        :param queries: A BEIR folder, a `.jsonl` or `.parquet` file, or the name of a data set.
        :returns: `training_set`: the folder. `rows`: how many queries have candidates; those for which nothing is found
            are left out and counted in a warning.
        :raises FileNotFoundError: If the queries are missing.
        :raises FileExistsError: If the output folder exists and is of other queries or settings.
        :raises ValueError: If a query is empty or comes twice, a document comes twice, nothing is found at all, or an
            unfinished run in the same place had other settings; if judgments are the teacher and there are none; if
            other processes can't open the document store.
        :raises ImportError: If workers need Ray, and Ray is not installed.
        :raises ConnectionError: If the Ray that RAY_ADDRESS names does not answer.
        """
        from haystack_distill.data.building import build
        from haystack_distill.data.questions import read_questions
        from haystack_distill.files.bulk import check_workers

        check_workers(self.num_workers)
        asked = read_questions(queries, self.split)
        if self.judgments:
            asked = [question for question in asked if any(grade > 0 for grade in question.judged.values())]
            if not asked:
                msg = f"{queries} has no judgments to learn from: give a BEIR folder, or a reader that labels."
                raise ValueError(msg)
        search = CandidateSearch(
            self.retriever, self.text_embedder, self.top_k, self.similarity, judgments=self.judgments
        )
        parts = {"retriever": self.retriever} | ({"text_embedder": self.text_embedder} if self.text_embedder else {})
        described = {name: component_to_dict(part, name) for name, part in parts.items()}
        found_with = {name: without_names(description) for name, description in described.items()}
        make = partial(_search_elsewhere, described, self.top_k, search.similarity, self.judgments)
        if self.num_workers > 1:
            search.refuse_what_is_not_shared()
        built = build(
            asked,
            (lambda: search.candidates) if self.num_workers == 1 else make,
            Path(self.output),
            source=queries,
            retriever=search.name,
            similarity=search.similarity,
            settings=found_with | {"top_k": self.top_k} | ({"judgments": True} if self.judgments else {}),
            shard_rows=self.shard_rows,
            teacher={"model": "judgments"} if self.judgments else None,
            num_workers=self.num_workers,
            progress=self.progress_bar,
        )
        return {"training_set": self.output, "rows": len(built)}

    def warm_up(self) -> None:
        """Warm up retriever and embedder."""
        warm_up(self.retriever, self.text_embedder)

    def close(self) -> None:
        """Close retriever and embedder."""
        close(self.retriever, self.text_embedder)


def _search_elsewhere(described: dict[str, Any], top_k: int, similarity: str, judgments: bool) -> Any:
    """Make retriever and embedder again, in a worker."""
    parts = {
        name: component_from_dict(import_class_by_name(content["type"]), content, name)
        for name, content in described.items()
    }
    search = CandidateSearch(parts["retriever"], parts.get("text_embedder"), top_k, similarity, judgments=judgments)
    if search.documents is not None:
        refuse_to_recreate(search.documents)
    return search.candidates
