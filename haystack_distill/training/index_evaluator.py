# SPDX-FileCopyrightText: 2026-present haystack-distill contributors
#
# SPDX-License-Identifier: Apache-2.0

"""The dev measure: retrieval from the index as it is, while the query encoder moves."""

from typing import Any

import numpy as np
import torch
from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer.evaluation import InformationRetrievalEvaluator
from sentence_transformers.util import dot_score

from haystack_distill.data.beir import Qrels
from haystack_distill.data.index import IndexView

METRIC = "dev_dot_ndcg@10"
"""The key of the measure in what the evaluator returns."""


class IndexRetrievalEvaluator(InformationRetrievalEvaluator):
    """
    nDCG@10 of a query encoder against fixed document vectors.

    :param queries: Query id -> text.
    :param qrels: Judgments.
    :param index: The index.
    """

    def __init__(self, queries: dict[str, str], qrels: Qrels, index: IndexView) -> None:
        super().__init__(
            queries={query_id: queries[query_id] for query_id in qrels},
            corpus=dict.fromkeys(index.ids, ""),
            relevant_docs={query_id: set(judged) for query_id, judged in qrels.items()},
            mrr_at_k=[10],
            ndcg_at_k=[10],
            accuracy_at_k=[10],
            precision_recall_at_k=[10],
            map_at_k=[10],
            name="dev",
            write_csv=False,
            show_progress_bar=False,
            score_functions={"dot": dot_score},
            main_score_function="dot",
        )
        self._documents = torch.from_numpy(np.array(index.ranking_vectors))

    def compute_all_metrics(self, model: SentenceTransformer, *args: Any, **kwargs: Any) -> dict[str, float]:  # type: ignore[override]
        """
        Rank with the index's own vectors; no document is embedded.

        :param model: The query encoder.
        :param args: See `InformationRetrievalEvaluator`.
        :param kwargs: See `InformationRetrievalEvaluator`.
        :returns: The metrics.
        """
        kwargs["corpus_embeddings"] = self._documents.to(model.device)
        return super().compute_all_metrics(model, *args, **kwargs)
