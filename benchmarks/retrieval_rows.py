"""Rows of `benchmarks.retrieval`: how one is measured, and where they are kept."""

from pathlib import Path
from typing import Any

from benchmarks.retrieval_systems import CODE, Bench, digest
from haystack_distill.evaluation.quality import compare, measure, share
from haystack_distill.files.journal import Journal


def row_code() -> str:
    """The sources that a row depends on."""
    names = ("joining", "kale", "retrieval_systems", "retrieval_rows")
    return digest([CODE, *(Path(__file__).with_name(f"{name}.py").read_text(encoding="utf-8") for name in names)])


class Rows:
    """
    Rows in a file that is only appended to; of two with one key the later counts.

    :param file: The file. Rows that other sources made, of this package or of the benchmark, stay in it, unused.
    """

    def __init__(self, file: Path) -> None:
        file.parent.mkdir(parents=True, exist_ok=True)
        self._journal = Journal(file)
        self._rows = {row["key"]: row for row in self._journal.rows if row["code"] == row_code()}

    def __contains__(self, key: str) -> bool:
        return key in self._rows

    def __getitem__(self, key: str) -> dict[str, Any]:
        return self._rows[key]

    def add(self, key: str, row: dict[str, Any]) -> None:
        """Keep a row."""
        self._rows[key] = row | {"key": key, "code": row_code()}
        self._journal.append(self._rows[key])


def key_of(bench: Bench, name: str, side: str, way: str | None) -> str:
    """What a row depends on, besides the code."""
    return digest([bench.identity, name, side, way, bench.reader.identity("question") if "reader" in name else None])


def row_of(bench: Bench, name: str, side: str, way: str | None) -> dict[str, Any]:
    """Make a system if it is not there, and measure it."""
    run, weight = bench.joined(name, side, way) if way else (bench.run(name, side), None)
    quality, alone = measure(run, bench.test), bench.encoder_alone
    summary = quality.summary()
    ndcg, recall = summary["ndcg@10"], summary["recall@10"]
    of_encoder = share(quality, alone)
    hybrid = bench.encoder_with_words.mean()
    ranker = bench.ranker(name, side)
    return {
        "data": bench.name,
        "queries": len(bench.test),
        "system": f"{name}+{way}" if way else name,
        "side": side,
        "ndcg@10": ndcg["value"],
        "ci_low": ndcg["low"],
        "ci_high": ndcg["high"],
        "recall@10": recall["value"],
        "recall_low": recall["low"],
        "recall_high": recall["high"],
        "p": None if (name, way) == ("encoder", None) else compare(quality, alone)["p"],
        "ms": None,
        "training_seconds": ranker.seconds,
        "share_of_teacher": of_encoder["value"],
        "share_low": of_encoder["low"],
        "share_high": of_encoder["high"],
        "share_of_hybrid": quality.mean() / hybrid if hybrid else None,
        "weight": weight,
        "note": ranker.note,
    }
