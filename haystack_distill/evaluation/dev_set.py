"""Dev queries and the documents that matter to them, kept beside a student so that its exports can be judged later."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np
from safetensors.numpy import save_file
from typing_extensions import TypedDict

from haystack_distill.data.beir import Qrels
from haystack_distill.data.index import IndexView
from haystack_distill.data.own_passages import judged_by_place
from haystack_distill.data.similarity import SIMILARITIES
from haystack_distill.evaluation.held_out import split_index_text
from haystack_distill.evaluation.quality import measure, search
from haystack_distill.files.folders import write_json
from haystack_distill.files.shapes import read_json, read_tensors
from haystack_distill.students.bi_encoder import BiEncoder

FOLDER, VECTORS = "dev", "documents.safetensors"
MOST_TEXTS = 2000


class _Content(TypedDict):
    """What `dev.json` holds."""

    similarity: Literal[SIMILARITIES]  # type: ignore[valid-type]
    documents: list[str]
    queries: dict[str, str]
    qrels: dict[str, dict[str, int]]


@dataclass(frozen=True)
class DevSet:
    """
    Dev queries with judgments and the part of the index that they are about.

    :param index: The documents that are judged or that the teacher finds among the first ten, without their texts.
    """

    queries: dict[str, str]
    qrels: Qrels
    index: IndexView

    def ndcg(self, vectors: np.ndarray) -> float:
        """The mean nDCG@10 of query vectors, `[queries, dim]` in the order of `queries`, over these documents."""
        return measure(search(self.index, list(self.queries), vectors), self.qrels).mean()

    @property
    def texts(self) -> list[str]:
        """The queries' texts."""
        return list(self.queries.values())


def judged_by_teacher(teacher: BiEncoder, index: IndexView, queries: dict[str, str]) -> Qrels:
    """Judgments for queries without any: what the teacher ranks among the first ten counts as relevant."""
    run = search(index, list(queries), teacher.encode_queries(list(queries.values())), depth=10)
    return {query_id: dict.fromkeys(found, 1) for query_id, found in run.items()}


def make_dev_set(index: IndexView, queries: dict[str, str], qrels: Qrels, found: Qrels) -> DevSet:
    """Keep what an export is judged on: queries with judgments, judged documents, and what the teacher `found`."""
    judged = {query_id: text for query_id, text in queries.items() if query_id in qrels}
    keep = {document for run in (found, qrels) for query_id in judged for document in run[query_id]}
    rows = [row for row, document in enumerate(index.ids) if document in keep]
    part = _part([index.ids[row] for row in rows], index.vectors[rows], index.similarity)
    return DevSet(judged, {query_id: qrels[query_id] for query_id in judged}, part)


def dev_set_of_texts(texts: list[str], encoder: BiEncoder) -> DevSet:
    """
    Make a dev set for an encoder that no alignment left one for: sentences are queries for the texts they stand in.

    :raises ValueError: If the texts hold too few sentences.
    """
    some = texts[:: max(1, len(texts) // MOST_TEXTS)][:MOST_TEXTS]
    index = _part([str(number) for number in range(len(some))], encoder.encode_documents(some), "cosine")
    parts = split_index_text(replace(index, texts=some), seed=0)
    if not parts.dev:
        msg = f"The {len(texts)} texts hold too few sentences to judge an export on: give at least 100 sentences."
        raise ValueError(msg)
    qrels = judged_by_place(parts.dev, parts.places, index)
    return make_dev_set(index, parts.dev, qrels, judged_by_teacher(encoder, index, parts.dev))


def write_dev_set(model: Path, dev: DevSet) -> None:
    """Put a dev set into the folder of a student. Vectors are kept in float16."""
    folder = model / FOLDER
    folder.mkdir()
    save_file({"vectors": dev.index.vectors.astype(np.float16)}, folder / VECTORS)
    content = {
        "similarity": dev.index.similarity,
        "documents": dev.index.ids,
        "queries": dev.queries,
        "qrels": dev.qrels,
    }
    write_json(folder / "dev.json", content)


def read_dev_set(model: Path) -> DevSet:
    """
    Read the dev set in the folder of a student.

    :raises FileNotFoundError: If the student has none.
    :raises ValueError: If it is damaged.
    """
    file = model / FOLDER / "dev.json"
    if not file.is_file():
        msg = (
            f"{model} has no dev queries to judge an export on ({FOLDER}/dev.json is missing): give the texts of the "
            "index with --data FOLDER, or align again."
        )
        raise FileNotFoundError(msg)
    again = "copy the model again, or align again."
    content = read_json(file, _Content, again)
    vectors = read_tensors(model / FOLDER / VECTORS, again).get("vectors", np.zeros(0)).astype(np.float32)
    if vectors.ndim != 2 or len(vectors) != len(content["documents"]):
        msg = f"{file.parent} is damaged (it has {len(content['documents'])} documents with other vectors): {again}"
        raise ValueError(msg)
    index = _part(content["documents"], vectors, content["similarity"])
    return DevSet(content["queries"], content["qrels"], index)


def _part(ids: list[str], vectors: np.ndarray, similarity: str) -> IndexView:
    return IndexView(ids, [""] * len(ids), np.asarray(vectors, dtype=np.float32), similarity, fingerprint="")
