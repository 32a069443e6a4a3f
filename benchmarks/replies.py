"""Figures of replies that were chosen from a response set, and what one system gained over another."""

import re
from typing import Any

import numpy as np

from haystack_distill.evaluation.quality import Quality, compare
from haystack_distill.responses.covering import covering

HITS = (
    ("data", "data", ""),
    ("system", "system", ""),
    ("hits@1", "hits@1", ".3f"),
    ("low", "hits@1_low", ".3f"),
    ("high", "hits@1_high", ".3f"),
    ("gain", "hits@1_gain", "+.3f"),
    ("low", "hits@1_gain_low", "+.3f"),
    ("high", "hits@1_gain_high", "+.3f"),
    ("hits@5", "hits@5", ".3f"),
    ("recall@1", "recall@1", ".3f"),
    ("recall@10", "recall@10", ".3f"),
)
CHOSEN = (
    ("data", "data", ""),
    ("system", "system", ""),
    ("loglik", "generator_loglik", ".3f"),
    ("gain", "generator_loglik_gain", "+.3f"),
    ("low", "generator_loglik_low", "+.3f"),
    ("high", "generator_loglik_high", "+.3f"),
    ("dist-2", "dist2", ".2f"),
    ("dist-3", "dist3", ".2f"),
    ("length", "length", ".1f"),
)
JUDGED = (
    ("data", "data", ""),
    ("system", "system", ""),
    ("judge", "judge:{}", ".3f"),
    ("gain", "judge:{}_gain", "+.3f"),
    ("low", "judge:{}_low", "+.3f"),
    ("high", "judge:{}_high", "+.3f"),
)
SETS = (
    ("data", "data", ""),
    ("system", "system", ""),
    ("first 3: near", "top_near", ".3f"),
    ("alike", "top_alike", ".3f"),
    ("set of 3: near", "set_near", ".3f"),
    ("alike", "set_alike", ".3f"),
    ("nearer by", "set_gain", "+.4f"),
    ("low", "set_low", "+.4f"),
    ("high", "set_high", "+.4f"),
)
SET = 3
LATENCY = (
    ("data", "data", ""),
    ("system", "system", ""),
    ("responses", "responses", "d"),
    ("efSearch", "ef", "d"),
    ("ms", "ms", ".2f"),
    ("generator ms", "generator_ms", ".0f"),
    ("on", "runtime", ""),
    ("times as fast", "speedup", ".0f"),
)


def in_whole_set(
    queries: np.ndarray, own: np.ndarray, replies: list[str], scores: np.ndarray, pool: list[str], found: np.ndarray
) -> np.ndarray:
    """How many responses come before the human reply in the response set and the test replies, up to 10 of the set."""
    names = np.array(replies, dtype=object)
    places = np.zeros(len(queries), dtype=np.int64)
    for row, query in enumerate(queries):
        right = own[row] @ query
        from_set = sum(
            score > right and pool[at] != replies[row] for score, at in zip(scores[row], found[row], strict=True)
        )
        better = set(names[own @ query > right]) - {replies[row]} - {pool[at] for at in found[row]}
        places[row] = from_set + len(better)
    return places


def of_sets(candidates: np.ndarray, humans: np.ndarray, k: int = SET) -> dict[str, np.ndarray]:
    """
    How near the nearest of k replies is to what the person said, and how near they are to each other, on average.

    :param candidates: Vectors of retrieved responses, `[contexts, candidates, dim]`, the best first.
    :param humans: Vectors of what people replied, `[contexts, dim]`.
    :returns: Cosines of each context for the first k (`top_near`, `top_alike`) and for a set (`set_near`, `set_alike`).
    """
    figures: dict[str, list[float]] = {name: [] for name in ("top_near", "top_alike", "set_near", "set_alike")}
    pairs = np.triu_indices(k, 1)
    for some, human in zip(candidates, humans, strict=True):
        for name, places in (("top", list(range(k))), ("set", covering(some, k))):
            chosen = some[places]
            figures[f"{name}_near"].append(float((chosen @ human).max()))
            figures[f"{name}_alike"].append(float((chosen @ chosen.T)[pairs].mean()))
    return {name: np.array(values) for name, values in figures.items()}


def diversity(replies: list[str]) -> dict[str, float]:
    """Dist-2 and dist-3 over all replies together, and their mean length in tokens (words and marks)."""
    tokens = [re.findall(r"\w+|[^\w\s]", reply.lower()) for reply in replies]

    def distinct(n: int) -> float:
        grams = [tuple(one[start : start + n]) for one in tokens for start in range(len(one) - n + 1)]
        return len(set(grams)) / max(1, len(grams))

    return {"dist2": distinct(2), "dist3": distinct(3), "length": float(np.mean([len(one) for one in tokens]))}


def add_gains(rows: list[dict[str, Any]], step_before: dict[str, str]) -> None:
    """What each row gained over the step before it, on the same contexts, in whatever both were measured by."""
    measured = {row["system"]: row for row in rows}
    for row in rows:
        before = measured.get(step_before.get(row["system"], ""))
        if before is None:
            continue
        for measure in row["per_context"].keys() & before["per_context"].keys():
            one, other = (quality_of({measure: each["per_context"][measure]}) for each in (row, before))
            difference = compare(one, other, measure)
            within = f"{measure}_gain" if measure == "hits@1" else measure  # its own interval has the plain names
            row |= {
                f"{measure}_gain": difference["difference"],
                f"{within}_low": difference["low"],
                f"{within}_high": difference["high"],
            }


def quality_of(values: dict[str, Any]) -> Quality:
    """Figures of contexts as `haystack_distill.evaluation.quality` has those of queries."""
    measured = {name: np.asarray(of_contexts, dtype=np.float64) for name, of_contexts in values.items()}
    return Quality(measured, [str(number) for number in range(len(next(iter(measured.values()))))])
