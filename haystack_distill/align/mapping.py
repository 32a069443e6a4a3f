"""The map that lets another encoder search an index, fitted on texts and selected on dev."""

import logging
import time

import numpy as np
from sentence_transformers import SentenceTransformer

from haystack_distill.align.ridge import Solved
from haystack_distill.evaluation.evaluators import IndexRetrievalEvaluator
from haystack_distill.students.bi_encoder import BiEncoder
from haystack_distill.students.mapped import ridge_maps, set_map

logger = logging.getLogger(__name__)


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
    :param inputs: What that makes of texts, `[texts, width]`.
    :param vectors: What the student should make of them, `[texts, dim]`.
    """
    start = time.perf_counter()
    maps, asked = ridge_maps(inputs, vectors), encoder.encode_queries(evaluator.queries)
    scores = {penalty: evaluator.measured(asked @ weight + bias) for penalty, (weight, bias) in maps.items()}
    best = max(scores, key=scores.__getitem__)
    set_map(student, *maps[best])
    said = ", ".join(f"{penalty:g}: {score:.4f}" for penalty, score in scores.items())
    logger.info("A linear map fitted on %d texts: dev nDCG@10 by penalty %s.", len(inputs), said)
    return Solved(scores, best, time.perf_counter() - start)
