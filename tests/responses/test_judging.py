"""The blind comparison of replies: what the page hides and holds, and what verdicts say when they are unblinded."""

import base64
import json
import re
import shutil
import subprocess

import pytest
from typer.testing import CliRunner

from haystack_distill.cli import app
from haystack_distill.responses.judging import read_system, unblinded, write_sheet

RUN = CliRunner()
COUNT = 12


@pytest.fixture
def files(tmp_path):
    paths = []
    for name in ("generator", "retriever"):
        rows = [
            {"_id": f"c{n}", "context": ["hi", f"turn {n} </script>"], "reply": f"reply {n} of system {name[0]}"}
            for n in range(COUNT)
        ]
        path = tmp_path / f"{name}.jsonl"
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
        paths.append(path)
    return paths


@pytest.fixture
def page(files, tmp_path):
    assert write_sheet([read_system(file) for file in files], tmp_path / "page.html", seed=3) == COUNT
    return tmp_path / "page.html"


def sheet_of(page) -> dict:
    text = page.read_text()
    found = re.search(r'<script id="sheet" type="application/json">(.*?)</script>', text, re.DOTALL)
    assert found
    return json.loads(found[1])


def verdicts_of(page, good: str) -> dict:
    """A judge who finds all replies of one system sensible, and every second one specific; the others nothing."""
    items = sheet_of(page)["items"]
    return {
        "key": sheet_of(page)["key"],
        "verdicts": {
            item["id"]: [
                {"sensible": text.endswith(good), "specific": text.endswith(good) and number % 2 == 0}
                for text in item["replies"]
            ]
            for number, item in enumerate(items)
        },
    }


def test_the_page_names_no_system(page):
    text = page.read_text()
    assert "retriever" not in text
    assert "generator" not in text


def test_systems_change_their_places(page):
    places = {[text[-1] for text in item["replies"]].index("g") for item in sheet_of(page)["items"]}
    assert places == {0, 1}


def test_the_same_seed_gives_the_same_page_and_another_another(files, page, tmp_path):
    systems = [read_system(file) for file in files]
    write_sheet(systems, tmp_path / "again.html", seed=3)
    write_sheet(systems, tmp_path / "other.html", seed=4)
    assert (tmp_path / "again.html").read_text() == page.read_text()
    assert sheet_of(tmp_path / "other.html")["items"] != sheet_of(page)["items"]


def test_what_was_said_can_t_end_the_script(page):
    item = next(item for item in sheet_of(page)["items"] if item["id"] == "c4")
    assert item["context"] == ["hi", "turn 4 </script>"]


def test_verdicts_are_unblinded(page, tmp_path):
    file = tmp_path / "verdicts.json"
    file.write_text(json.dumps(verdicts_of(page, "r")))
    found = unblinded([file])
    assert found["contexts"] == COUNT
    assert found["systems"]["retriever"]["sensible"] == {"value": 1.0, "low": 1.0, "high": 1.0}
    assert found["systems"]["retriever"]["specific"]["value"] == 0.5
    assert found["systems"]["retriever"]["ssa"]["value"] == 0.75
    assert found["systems"]["generator"]["ssa"]["value"] == 0.0
    difference = found["differences"]["retriever"]["ssa"]
    assert difference["low"] < difference["value"] == 0.75 < difference["high"]


def test_judges_are_averaged(page, tmp_path):
    for name, good in (("a", "r"), ("b", "g")):
        (tmp_path / f"{name}.json").write_text(json.dumps(verdicts_of(page, good)))
    found = unblinded([tmp_path / "a.json", tmp_path / "b.json"])
    assert found["judges"] == 2
    assert found["systems"]["retriever"]["sensible"]["value"] == 0.5


def test_what_is_not_sensible_is_not_specific(page, tmp_path):
    content = verdicts_of(page, "r")
    content["verdicts"] = {key: [{"sensible": False, "specific": True}] * 2 for key in content["verdicts"]}
    (tmp_path / "v.json").write_text(json.dumps(content))
    assert unblinded([tmp_path / "v.json"])["systems"]["retriever"]["specific"]["value"] == 0


@pytest.mark.parametrize(
    "content", ["no json", "[]", "{}", '{"key": "e30=", "verdicts": {"a": []}}', '{"key": "?", "verdicts": {}}']
)
def test_what_holds_no_verdicts_is_said(content, tmp_path):
    (tmp_path / "v.json").write_text(content)
    with pytest.raises(ValueError, match="v.json holds no verdict"):
        unblinded([tmp_path / "v.json"])


def test_verdicts_of_other_systems_are_not_mixed(page, tmp_path):
    (tmp_path / "a.json").write_text(json.dumps(verdicts_of(page, "r")))
    key = base64.b64encode(json.dumps({"systems": ["x", "y"], "orders": {"c": [0, 1]}}).encode()).decode()
    other = {"key": key, "verdicts": {"c": [{"sensible": True, "specific": True}] * 2}}
    (tmp_path / "b.json").write_text(json.dumps(other))
    with pytest.raises(ValueError, match="unblind them apart"):
        unblinded([tmp_path / "a.json", tmp_path / "b.json"])


def test_the_command_writes_and_unblinds(files, tmp_path):
    page = tmp_path / "p.html"
    made = RUN.invoke(app, ["compare-replies", *map(str, files), "--output", str(page), "--contexts", "5"])
    assert made.exit_code == 0, made.output
    assert len(sheet_of(page)["items"]) == 5
    (tmp_path / "v.json").write_text(json.dumps(verdicts_of(page, "g")))
    told = RUN.invoke(app, ["compare-replies", "--verdicts", str(tmp_path / "v.json")])
    assert told.exit_code == 0, told.output
    assert re.search(r"generator .* 100 \(100 to 100\)", told.output)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda rows: rows[:1] + rows[:1], "comes twice"),
        (lambda _: [{"_id": "x", "context": ["a"], "reply": "b"}], "no context in common"),
        (lambda rows: [{**rows[0], "context": ["other"]}], "not the same in all files"),
        (lambda _: [{"_id": "c0", "context": ["a"]}], "line 1: expected"),
    ],
)
def test_files_that_don_t_fit_are_one_sentence(files, change, says):
    rows = [json.loads(line) for line in files[1].read_text().splitlines()]
    files[1].write_text("".join(json.dumps(row) + "\n" for row in change(rows)))
    told = RUN.invoke(app, ["compare-replies", *map(str, files)])
    assert told.exit_code == 1
    assert says in " ".join(told.output.split())


def test_one_system_is_no_comparison(files):
    told = RUN.invoke(app, ["compare-replies", str(files[0])])
    assert told.exit_code == 1
    assert "at least two systems" in told.output


@pytest.mark.parametrize(
    "verdicts",
    ['"a list"', '{"c": [{"sensible": true}]}', "[" * 100_000, '{"other": []}', '{"c": 5}', '{"c": [1, 2]}'],
    ids=["text", "half", "deep", "other", "number", "numbers"],
)
def test_broken_verdicts_are_one_sentence(verdicts, tmp_path):
    key = base64.b64encode(json.dumps({"systems": ["x", "y"], "orders": {"c": [0, 1]}}).encode()).decode()
    (tmp_path / "v.json").write_text(f'{{"key": "{key}", "verdicts": {verdicts}}}')
    with pytest.raises(ValueError, match=r"v\.json holds no verdict"):
        unblinded([tmp_path / "v.json"])


def test_an_order_that_names_a_system_twice_is_refused(tmp_path):
    key = base64.b64encode(json.dumps({"systems": ["x", "y"], "orders": {"c": [0, 0]}}).encode()).decode()
    verdicts = {"c": [{"sensible": True, "specific": True}] * 2}
    (tmp_path / "v.json").write_text(json.dumps({"key": key, "verdicts": verdicts}))
    with pytest.raises(ValueError, match="a context does not have every system once"):
        unblinded([tmp_path / "v.json"])


HOSTILE = "<!--<script>"


@pytest.fixture
def hostile_page(tmp_path):
    """The id of its only context is no name for a property of an object, and the response opens a comment and a tag."""
    row = {"_id": "__proto__", "context": ["hi"], "reply": HOSTILE}
    files = [tmp_path / "a.jsonl", tmp_path / "b.jsonl"]
    for file in files:
        file.write_text(json.dumps(row))
    assert write_sheet([read_system(file) for file in files], tmp_path / "page.html") == 1
    return tmp_path / "page.html"


def test_what_was_said_opens_no_comment_and_no_tag(hostile_page):
    text = hostile_page.read_text()
    assert HOSTILE not in text
    assert sheet_of(hostile_page)["items"][0]["replies"] == [HOSTILE] * 2


def shown_by_a_browser(page, tmp_path):
    options = ["--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={tmp_path}", "--dump-dom"]
    command = [shutil.which("chromium"), *options, page.as_uri()]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=True).stdout


@pytest.mark.skipif(shutil.which("chromium") is None, reason="chromium is not installed")
def test_a_browser_shows_the_first_context(page, tmp_path):
    shown = shown_by_a_browser(page, tmp_path)
    item = sheet_of(page)["items"][0]
    body = shown[: shown.index('<script id="sheet"')]
    assert all(text in body for text in item["replies"])
    assert body.count('type="checkbox"') == 4
    assert f"1 of {COUNT}" in body


@pytest.mark.skipif(shutil.which("chromium") is None, reason="chromium is not installed")
def test_a_browser_keeps_the_verdict_on_a_hostile_context(hostile_page, tmp_path):
    shown = shown_by_a_browser(hostile_page, tmp_path)
    body = shown[: shown.index('<script id="sheet"')]
    assert body.count('type="checkbox"') == 4
    assert 'value="0"' in body, "nothing is judged yet"
    click = '<script>document.querySelector("input").click(); document.title = localStorage.getItem(memory);</script>'
    hostile_page.write_text(hostile_page.read_text().replace("</body>", f"{click}</body>"))
    kept = re.search("<title>(.*)</title>", shown_by_a_browser(hostile_page, tmp_path))
    nothing = {"sensible": False, "specific": False}
    assert json.loads(kept[1])["__proto__"] == [{"sensible": True, "specific": False}, nothing]
