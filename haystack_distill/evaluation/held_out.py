# SPDX-FileCopyrightText: 2026-present haystack-distill contributors
#
# SPDX-License-Identifier: Apache-2.0

"""Queries that are held out: to select on, and to prove on."""

from haystack_distill.data.beir import Qrels, check_judged, read_beir
from haystack_distill.data.index import IndexView


def judged_split(path: str, split: str, index: IndexView) -> tuple[dict[str, str], Qrels]:
    """
    Read the queries and judgments of a split, and make sure that they are about this index.

    :param path: A BEIR folder.
    :param split: `train`, `dev` or `test`.
    :param index: The index.
    :returns: Query id -> text of those that are judged, and the judgments.
    :raises FileNotFoundError: If the folder is not one in BEIR's form.
    :raises ValueError: If the split is missing or judges documents that the index lacks.
    """
    folder = read_beir(path)
    qrels = folder.qrels.get(split, {})
    if not qrels:
        msg = f"{path}/qrels/{split}.tsv is missing or judges nothing: name a split that has judgments."
        raise ValueError(msg)
    check_judged(qrels, index.ids, f"{path}/qrels/{split}.tsv")
    return {query_id: folder.queries[query_id] for query_id in qrels}, qrels
