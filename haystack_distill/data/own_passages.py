"""
What an index knows that its encoder does not: which passage a sentence stands in.

A student that is aligned with the teacher's vectors alone can at best be as good as the teacher. Text from the index
brings a label of its own, its passage, as in the inverse cloze task of Lee et al. (arXiv 1906.00300); the passage's
vector is in the store. So the target of a sentence is moved some way from the teacher's vector to that of its passage.
"""

from collections.abc import Mapping, Sequence

import numpy as np

from haystack_distill.data.beir import Qrels
from haystack_distill.data.index import IndexView


def toward_own_passages(
    vectors: np.ndarray, texts: Sequence[str], places: Mapping[str, list[int]], index: IndexView, weight: float
) -> np.ndarray:
    """
    Move the targets of sentences toward the passages that they stand in.

    Directions are mixed, not lengths: (1 - weight) t/|t| + weight p/|p|, at the length of t, where t is the teacher's
    vector and p the mean direction of the passages.

    :param vectors: The teacher's vectors, `[texts, dim]`, which are not changed.
    :param places: Sentence -> the numbers of its documents in the index; the targets of other texts don't move.
    :param weight: From 0, the teacher alone, to below 1.
    :returns: The targets, `[texts, dim]`.
    """
    moved = [row for row, text in enumerate(texts) if text in places] if weight else []
    if not moved:
        return vectors
    passages = np.stack([_directions(index.vectors[places[texts[row]]]).mean(axis=0) for row in moved])
    lengths = np.linalg.norm(vectors[moved], axis=1, keepdims=True)
    between = (1 - weight) * _directions(vectors[moved]) + weight * _directions(passages)
    targets = vectors.copy()
    targets[moved] = _directions(between) * lengths
    return targets


def judged_by_place(sentences: Mapping[str, str], places: Mapping[str, list[int]], index: IndexView) -> Qrels:
    """
    Judgments for sentences of an index: the documents that a sentence stands in are relevant to it.

    :param places: Sentence -> the numbers of its documents in the index.
    """
    return {query_id: {index.ids[number]: 1 for number in places[sentence]} for query_id, sentence in sentences.items()}


def _directions(vectors: np.ndarray) -> np.ndarray:
    return vectors / np.linalg.norm(vectors, axis=-1, keepdims=True).clip(min=1e-12)
