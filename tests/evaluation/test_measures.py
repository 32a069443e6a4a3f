"""One list of measures drives every table."""

import subprocess
import sys
from pathlib import Path

import ir_measures

from haystack_distill.evaluation.measures import HEADINGS, MEASURES, cells, headline


def test_each_is_one_that_the_library_knows():
    for row in MEASURES:
        assert str(ir_measures.parse_measure(row.definition)) == row.definition


def test_the_documentation_lists_them_in_their_order():
    page = (Path(__file__).parents[2] / "docs" / "metrics.md").read_text(encoding="utf-8")
    listed = [line.split("|")[1:3] for line in page.splitlines() if line.startswith("| `….")]
    listed = [(key, said) for key, said in listed if "@10" in key]  # hits@1 is of responses alone
    assert [(key.strip(), said.split(":")[0].strip()) for key, said in listed] == [
        (f"`….{row.key}`", row.heading) for row in MEASURES
    ]


def test_a_system_fills_every_column():
    values = {row.key: place / 10 for place, row in enumerate(MEASURES)} | {"encode_ms": 3.0}
    filled = cells(values, (0.1, 0.25))
    assert len(filled) == len(HEADINGS) == len(MEASURES) + 1
    assert filled[:3] == ["0.000", "0.100 to 0.250", "0.100"]


def test_one_sentence_says_what_was_kept_and_how_sure_that_is():
    figures = {"share_of_teacher": 1.041, "share_low": 0.91, "share_high": 1.18, "speedup": 2.61, "queries": 17}
    assert headline(figures) == (
        "104.1 % of the teacher's nDCG@10, 2.6 times as fast; 95 % interval 91.0 to 118.0 %, 17 queries: "
        "no difference can be told."
    )
    assert headline({**figures, "share_low": 1.01}).endswith("95 % interval 101.0 to 118.0 %, 17 queries.")
    assert headline({**figures, "share_low": None}).endswith("on 17 queries, too few for an interval.")
    assert "finds nothing" in headline({**figures, "share_of_teacher": None})


def test_tables_need_no_torch():
    script = "import sys, haystack_distill.evaluation.measures; print('torch' in sys.modules)"
    assert (
        subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout == "False\n"
    )
