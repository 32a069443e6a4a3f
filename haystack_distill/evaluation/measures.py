"""The measures of a ranking, one row each: every table that shows them is made from these rows."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Measure:
    """A measure between 0 and 1, higher is better: its key in `metrics.json`, and its definition for ir_measures."""

    key: str
    heading: str
    definition: str


MEASURES = (
    Measure("ndcg@10", "nDCG@10", "nDCG@10"),
    Measure("recall@10", "recall@10", "R@10"),
    Measure("mrr@10", "MRR@10", "RR@10"),
)
MAIN = MEASURES[0]
"""The measure that systems are compared by."""

HEADINGS = (MAIN.heading, "95 %", *(measure.heading for measure in MEASURES[1:]))
"""The columns that `cells` fills."""


def cells(values: Mapping[str, Any], interval: tuple[float, float]) -> list[str]:
    """The figures of a system, measure -> value, with the interval of the main one, for the columns `HEADINGS`."""
    main, *others = (f"{values[measure.key]:.3f}" for measure in MEASURES)
    return [main, f"{interval[0]:.3f} to {interval[1]:.3f}", *others]


def listed(scores: Mapping[str, float]) -> str:
    """Scores in a line, as in `0.3: 0.7352, 0.1: 0.7366`."""
    return ", ".join(f"{name}: {score:.4f}" for name, score in scores.items())


def headline(figures: Mapping[str, Any], reference: str = "teacher") -> str:
    """Say in one sentence what the last system of a `metrics.json` kept and gained, and how sure that is."""
    share, low, high = (figures[key] for key in (f"share_of_{reference}", "share_low", "share_high"))
    if share is None:
        return f"The {reference} finds nothing that is relevant, so there is no share of its {MAIN.heading}."
    said = f"{100 * share:.1f} % of the {reference}'s {MAIN.heading}, {figures['speedup']:.1f} times as fast"
    if low is None:
        return f"{said}, on {figures['queries']} queries, too few for an interval."
    verdict = ": no difference can be told" if low <= 1 <= high else ""
    return f"{said}; 95 % interval {100 * low:.1f} to {100 * high:.1f} %, {figures['queries']} queries{verdict}."
