"""Which layers of the teacher a student keeps, and the student before it is trained."""

import logging
from math import comb
from pathlib import Path

import numpy as np
from sentence_transformers import SentenceTransformer
from typing_extensions import TypedDict

from haystack_distill.evaluation.evaluators import IndexRetrievalEvaluator
from haystack_distill.evaluation.measures import listed
from haystack_distill.files.folders import write_json
from haystack_distill.files.progress import progress_bar
from haystack_distill.files.shapes import read_json
from haystack_distill.students.bi_encoder import BiEncoder
from haystack_distill.students.cutting import check_depth, check_keep, find_stack, kale_layers
from haystack_distill.students.layer_search import MAX_CANDIDATES, LayerSearch, make_layered
from haystack_distill.students.token_table import average_over, make_token_table
from haystack_distill.training.trainer import METRIC

logger = logging.getLogger(__name__)

SEARCH_QUERIES, SEARCH_TEXTS, FOLD_TEXTS = 128, 500, 2000
"""Dev queries and texts with which layers are searched for, and texts over which dropped layers are averaged."""


class _Found(TypedDict):
    """What a search for layers leaves."""

    kept: list[int]
    searched: dict[str, float]


def named_layers(layers: int, keep: tuple[int, ...] | str | None, depth: int) -> tuple[int, ...] | None:
    """
    The layers that stay, as far as they are named; none for a token table.

    :param keep: Their numbers, or `kale`, or None.
    :returns: None if the layers are to be searched for.
    :raises ValueError: If they don't fit the teacher.
    """
    if isinstance(keep, str):
        if keep != "kale":
            msg = f"keep={keep!r} is not known: give layer numbers, or 'kale' for the paper's."
            raise ValueError(msg)
        return kale_layers(depth, layers)
    if keep is not None:
        return check_keep(keep, depth)
    check_depth(layers, depth)
    return None if layers else ()


def best_layers(
    file: Path,
    teacher: BiEncoder,
    count: int,
    evaluator: IndexRetrievalEvaluator,
    texts: list[str],
    progress: bool,
) -> tuple[tuple[int, ...], dict[str, float]]:
    """
    Search for the layers that keep most, unless a killed run did: its checkpoints fit the layers it found.

    :param file: Where the result is kept for that case.
    :param evaluator: The dev measure, of which a part serves.
    :returns: The layers, and what was measured: layers -> dev nDCG@10.
    """
    if file.exists():
        before = read_json(file, _Found, "delete it, and layers are searched again.")
        return tuple(before["kept"]), before["searched"]
    part = evaluator.part(SEARCH_QUERIES)
    tokens = {token for row in teacher.model.tokenizer(part.queries)["input_ids"] for token in row}
    sample = texts[:: max(1, len(texts) // SEARCH_TEXTS)]
    most = min(MAX_CANDIDATES, comb(len(find_stack(teacher.model)), count))
    with progress_bar("Trying layers, at most", most, 0, shown=progress) as show:

        def measured(student: SentenceTransformer) -> float:
            show(len(search.scores) + 1)
            return part(student)[METRIC]

        search = LayerSearch(teacher, measured, sample, tokens)
        best = search.best(count)
    scores = {" ".join(map(str, layers)): score for layers, score in search.scores.items() if np.isfinite(score)}
    logger.info("Layers %s stay; dev nDCG@10 of those tried, untrained: %s.", list(best), listed(scores))
    write_json(file, {"kept": best, "searched": scores})
    return best, scores


def make_student(
    teacher: BiEncoder, kept: tuple[int, ...], texts: list[str], *, folded: bool
) -> tuple[SentenceTransformer, SentenceTransformer]:
    """
    Build the untrained student and the plain cut that it is compared with.

    :param kept: The layers that stay; none for a token table.
    :param texts: Text of the index, over which dropped layers are averaged.
    :param folded: Whether dropped lower layers are folded into the token embeddings.
    :returns: The student, and the encoder that is only cut.
    """
    sample = texts[:: max(1, len(texts) // FOLD_TEXTS)]
    if not kept:
        cut_only = make_token_table(teacher)
        return average_over(cut_only, teacher, sample), cut_only
    student = make_layered(teacher, kept, sample, folded=folded)
    return student, make_layered(teacher, kept, [], folded=False)
