"""The map that lets another encoder search an index, fitted on texts and selected on dev."""

import logging
import math
import time
from pathlib import Path

import numpy as np
from sentence_transformers import SentenceTransformer

from haystack_distill.align.ridge import Solved
from haystack_distill.data.index import IndexView, stored_vectors
from haystack_distill.evaluation.evaluators import IndexRetrievalEvaluator
from haystack_distill.evaluation.measures import listed
from haystack_distill.students.bi_encoder import BiEncoder
from haystack_distill.students.mapped import ridge_maps, set_map

logger = logging.getLogger(__name__)

DOCUMENTS = 2000
"""Of a larger index about so many documents are pairs of the map, besides the texts."""


def map_pairs(
    encoder: BiEncoder, index: IndexView, texts: list[str], vectors: np.ndarray, workspace: Path, progress: bool
) -> tuple[np.ndarray, np.ndarray]:
    """
    What a map is fitted on: texts as queries, and documents, whose vectors in the index cost nothing.

    :param vectors: What the student should make of the texts, `[texts, dim]`.
    :param workspace: Holds what the encoder made, so that a killed run does not read again.
    :returns: What the encoder makes of all, `[pairs, width]`, and what it should be, `[pairs, dim]`.
    """
    rows = [row for row, text in enumerate(index.texts) if text.strip()]
    rows = rows[:: math.ceil(len(rows) / DOCUMENTS)]
    documents, prefixes = [index.texts[row] for row in rows], [encoder.query_prefix, encoder.document_prefix]

    def read() -> np.ndarray:
        queries = encoder.encode_targets(texts, progress=progress, what="The new encoder reads")
        return np.concatenate([queries, encoder.encode_documents(documents, progress=progress)])

    inputs = stored_vectors(workspace / "student_vectors.npy", [*prefixes, *texts, *documents], read)
    return inputs, np.concatenate([vectors, index.vectors[rows]])


def solve_map(
    student: SentenceTransformer,
    encoder: BiEncoder,
    inputs: np.ndarray,
    vectors: np.ndarray,
    evaluator: IndexRetrievalEvaluator,
) -> Solved:
    """
    Give a student the map that comes nearest to the vectors of the index's encoder; the penalty is selected on dev.

    :param student: From `with_map`; it is changed in place.
    :param encoder: What it is before the map.
    :param inputs: What that makes of texts and documents, `[pairs, width]`.
    :param vectors: What the student should make of them, `[pairs, dim]`.
    """
    start = time.perf_counter()
    maps, asked = ridge_maps(inputs, vectors), encoder.encode_queries(evaluator.queries)
    scores = {
        penalty: evaluator.measured(asked @ weight + bias, evaluator.index) for penalty, (weight, bias) in maps.items()
    }
    best = max(scores, key=scores.__getitem__)
    set_map(student, *maps[best])
    solved = Solved(scores, best, time.perf_counter() - start)
    found = listed(solved.by_penalty)
    logger.info("A linear map fitted on %d texts and documents: dev nDCG@10 by penalty %s.", len(inputs), found)
    return solved
