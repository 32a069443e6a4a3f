"""Every page that is written, in a real browser: nothing in it runs that came from outside, and all can be read."""

import json
from pathlib import Path

import pytest

from haystack_distill.evaluation.side_by_side import Row, Side, side_by_side
from haystack_distill.responses.judging import SystemResponses, write_sheet
from tests.browser import LOOK, browser, path_of_browser
from tests.evaluation.test_report import metrics, system
from tests.evaluation.test_report import write_report as report

HOSTILE = (
    "<script>alert(1)</script><img src=x onerror=alert(2)>",
    "</script><script>alert(3)</script><!--<script>",
    "\"'><svg onload=alert(4)>{{ 7 * 7 }}{% raw %}${alert(5)}",
    "</style><a href=javascript:alert(6) autofocus onfocus=alert(7)>x</a>\u2028\\u003cscript>",
    "__proto__",
    "constructor" * 20,
    "\u202eright to left \U0001f600 " + "x" * 200,
)
"""Texts, ids and names as nobody should have to fear them; the last ones are long words that nothing may break."""

VIEWS = [(width, dark) for width in (1280, 390) for dark in (False, True)]


@pytest.fixture(scope="module")
def chromium(tmp_path_factory):
    path = path_of_browser()
    if path is None:
        pytest.skip("There is no Chromium on this machine (chromium, google-chrome or chrome on PATH).")
    with browser(path, tmp_path_factory.mktemp("profile")) as running:
        yield running


def a_report(file: Path, names: tuple[str, ...], *, reference: str = "teacher") -> Path:
    systems = [system(reference, 6, 13.0, 0.1)]
    systems += [system(name, 2 - place, 5.0 - 2 * place, 0.08 - place / 50, 12.0) for place, name in enumerate(names)]
    measured = {one.system.name: one for one in systems}
    example = dict.fromkeys(("query", "relevant", "reference_first", "student_first"), "\n".join(HOSTILE))
    found = {
        "wins": [{**example, "reference": 0.0, "student": 1.0}],
        "losses": [{**example, "reference": 1, "student": 0}],
    }
    history = [{"epoch": number / 2, "dev_ndcg@10": 0.6 + number / 100} for number in range(7)]
    facts = dict(zip(HOSTILE, reversed(HOSTILE), strict=True))
    file.write_text(report(measured, metrics(measured, reference=reference), found, facts, history, reference))
    return file


def a_sheet(file: Path) -> Path:
    contexts = {text: [text, *HOSTILE[:3]] for text in HOSTILE}
    systems = [
        SystemResponses(HOSTILE[number], contexts, dict(zip(HOSTILE, HOSTILE[number:] + HOSTILE[:number], strict=True)))
        for number in (0, 1)
    ]
    write_sheet(systems, file)
    return file


def a_comparison(file: Path) -> Path:
    rows = [
        Row(text, (Side(list(HOSTILE), 12.0, text), Side([text], 0.5, None if number else text)))
        for number, text in enumerate(HOSTILE)
    ]
    file.write_text(side_by_side((HOSTILE[0], HOSTILE[-1]), [*rows, Row("?", (Side([], 1.0), Side([], 1.0)))]))
    return file


PAGES = {
    "one student": lambda file: a_report(file, ("student",)),
    "a retriever as it was": lambda file: a_report(file, ("student",), reference="untouched"),
    "students of any name": lambda file: a_report(file, HOSTILE[:3]),
    "a sheet for judges": a_sheet,
    "before and after": a_comparison,
}


@pytest.mark.parametrize("name", PAGES)
def test_nothing_runs_and_all_can_be_read(name, chromium, tmp_path):
    file = PAGES[name](tmp_path / "page.html")
    colours = []
    for width, dark in VIEWS:
        with chromium.page(file, width=width, dark=dark) as page:
            look = page.evaluate(LOOK)
            colours.append(page.evaluate("getComputedStyle(document.body).backgroundColor"))
            assert page.evaluate("document.querySelectorAll('img, [onerror], [onload], [onfocus], a').length") == 0
            assert page.evaluate("[...document.scripts].every(one => !one.textContent.includes('alert(1)') || one.id)")
        assert page.faults == [], (width, dark)
        assert page.fetched == [file.as_uri()], "it is one file"
        assert look == {"small": [], "outside": [], "overlapping": [], "width": width}, (width, dark)
    assert colours == [colours[0], colours[1]] * 2
    assert colours[0] != colours[1], "dark where the reader's system is"


def test_a_sheet_is_filled_in_and_saved(chromium, tmp_path):
    """As a judge does it: by keys, through all contexts; what is saved names each under its own id."""
    with chromium.page(a_sheet(tmp_path / "sheet.html")) as page:
        page.evaluate(
            "window.saved = null; URL.createObjectURL = blob => { window.saved = blob; return 'blob:x'; };"
            "HTMLAnchorElement.prototype.click = () => {}; 0"
        )
        for _ in HOSTILE:
            page.press("1", "Digit1")
            page.press("Enter", "Enter")
        verdicts = json.loads(page.evaluate("window.saved.text()"))["verdicts"]
    assert page.faults == []
    assert set(verdicts) == set(HOSTILE)
    assert all(boxes[0] == {"sensible": True, "specific": False} for boxes in verdicts.values())
