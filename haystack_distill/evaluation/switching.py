"""Whether a new index may take over from the one that serves."""

from typing import Any

from haystack_distill.data.beir import Qrels
from haystack_distill.data.index import IndexView
from haystack_distill.evaluation.comparison import System, run_of
from haystack_distill.evaluation.quality import compare, measure


def judge(
    old: tuple[System, IndexView],
    new: tuple[System, IndexView],
    queries: dict[str, str],
    qrels: Qrels,
    *,
    max_loss: float = 0.0,
    seed: int = 0,
) -> dict[str, Any]:
    """
    Decide whether a new index may take over: its nDCG@10 on the same queries must not be below the old one's.

    Both are searched exactly, so that no approximation of a store hides a difference.

    :param old: The query encoder that serves now, and its index.
    :param max_loss: How much lower the nDCG@10 of the new index may be.
    :returns: `old` and `new` (measure -> `value`, `low`, `high`), `difference` (see `compare`), `queries`, and
        `not_worse`.
    """
    before, after = (measure(run_of(system, index, queries, qrels), qrels) for system, index in (old, new))
    return {
        "old": before.summary(seed),
        "new": after.summary(seed),
        "difference": compare(after, before, seed=seed),
        "queries": len(qrels),
        "not_worse": after.mean() >= before.mean() - max_loss,
    }
