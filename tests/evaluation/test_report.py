"""The page beside a student: what it says of one and of several students, and its pictures."""

import os
import re
import subprocess
import sys

import numpy as np
import pytest

from haystack_distill.data.index import IndexView
from haystack_distill.evaluation.comparison import Measured, System, metrics, wins_and_losses
from haystack_distill.evaluation.measures import HEADINGS, MEASURES
from haystack_distill.evaluation.proof import Evidence
from haystack_distill.evaluation.quality import Quality
from haystack_distill.evaluation.report import write_report

NOTHING = {"wins": [], "losses": []}
QUERIES = 40


def system(name, layers, milliseconds, shift, seconds=None):
    values = np.clip(np.random.default_rng(0).random(QUERIES) * 0.8 + shift, 0, 1)
    per_query = {row.key: values for row in MEASURES}
    measured = Quality(per_query, [f"q{number}" for number in range(QUERIES)])
    return Measured(System(name, np.zeros_like, layers, seconds), measured, milliseconds, {})


def page_of(*systems, history=(), reference="teacher", facts=None):
    measured = {one.system.name: one for one in systems}
    figures = metrics(measured, reference=reference)
    return figures, write_report(measured, figures, NOTHING, facts or {}, history, reference)


def pictures(page):
    return re.findall(r"<svg.*?</svg>", page, re.DOTALL)


def texts(svg):
    return re.findall(r"<text[^>]*>([^<]*)</text>", svg)


def test_every_measure_has_its_column_and_the_share_its_interval():
    figures, page = page_of(system("teacher", 6, 13.0, 0.1), system("student", 2, 5.0, 0.08, 12.0))
    assert [f"<th>{heading}</th>" in page for heading in HEADINGS] == [True] * len(HEADINGS)
    low, high = 100 * figures["share_low"], 100 * figures["share_high"]
    assert f"<b>{100 * figures['share_of_teacher']:.1f} %</b>" in page
    assert f"(95 %: {low:.1f} to {high:.1f} %)" in page


def test_several_students_each_have_a_headline():
    names = ("two layers", "table")
    students = [system(name, place, 5.0 - place, 0.09 - place / 20) for place, name in enumerate(names)]
    teacher = system("teacher", 6, 13.0, 0.1)
    _, page = page_of(teacher, *students)
    assert "2 students against the same index" in page
    for student in students:
        kept = student.quality.mean() / teacher.quality.mean()
        _, _, tiles = page.partition(f"<h2>{student.system.name}</h2>")
        assert tiles.index(f"<b>{100 * kept:.1f} %</b>") < tiles.index("</div>\n</div>")


def test_pictures_name_every_system_beside_its_figure_and_number_their_axes():
    systems = [system("teacher", 6, 13.0, 0.1), system("cut_only", 2, 5.0, 0.0), system("student", 2, 5.0, 0.09)]
    _, page = page_of(*systems)
    quality, latency = pictures(page)
    for svg in (quality, latency):
        labels = ["teacher (6 layers)", "cut only (2 layers)", "student (2 layers)"]
        assert [text for text in texts(svg) if text in labels] == labels
        assert sum(bool(re.fullmatch(r"\d+(\.\d+)?", text)) for text in texts(svg)) >= 3
    assert {"13.0", "5.0"} <= set(texts(latency))


def test_a_hybrid_has_a_table_of_its_own_and_compares_within_a_way_of_joining():
    alone = {one.system.name: one for one in (system("teacher", 6, 13.0, 0.1), system("<b>&", 2, 5.0, 0.05))}
    joined = {one.system.name: one for one in (system("teacher", 6, 20.0, 0.2), system("<b>&", 2, 10.0, 0.15))}
    index = IndexView(["a"], ["a text"], np.ones((1, 1)), "cosine", fingerprint="")
    queries = dict.fromkeys(alone["teacher"].quality.query_ids, "a query")
    qrels = {query_id: {"a": 1} for query_id in queries}
    evidence = Evidence(alone, index, queries, qrels, hybrids={"alone": alone, "rrf": joined})
    figures = evidence.figures()
    _, _, table = evidence.page(figures, {}, []).partition("<h2>In a hybrid</h2>")
    for way, systems in (("alone", alone), ("rrf", joined)):
        kept = systems["<b>&"].quality.mean() / systems["teacher"].quality.mean()
        assert figures["hybrids"][way]["<b>&"]["share_of_teacher"] == pytest.approx(kept)
        assert f"<tr><td>teacher, {way}</td>" in table
        row = table.partition(f'<tr class="student"><td>&lt;b&gt;&amp;, {way}</td>')[2].partition("</tr>")[0]
        assert f"<td>{100 * kept:.1f} %</td>" in row
    assert "<td>2.0</td>" in row, "twice as fast as the teacher in the same hybrid"


def test_equal_depths_are_not_timed_against_each_other():
    _, page = page_of(system("untouched", 6, 13.0, 0.1), system("student", 6, 13.1, 0.12), reference="untouched")
    assert len(pictures(page)) == 1
    assert "times as fast, " not in page
    assert "<h2>Quality</h2>" in page


def test_the_learning_curve_shows_whole_epochs_and_where_it_began():
    history = [{"epoch": number / 4, "dev_ndcg@10": 0.6 + number / 100} for number in range(9)]
    systems = (system("teacher", 6, 13.0, 0.1), system("student", 2, 5.0, 0.08))
    learning = pictures(page_of(*systems, history=history)[1])[-1]
    ticks = texts(learning)
    assert [text for text in ticks if re.fullmatch(r"\d(\.\d)?", text)] == ["0", "1", "2"]
    assert "epoch (dotted: before training)" in ticks
    later = pictures(page_of(*systems, history=history[1:])[1])[-1]
    assert "epoch" in texts(later)


@pytest.mark.parametrize(
    "name", ["$$", "$^$", r"$\frac$", "_ a", "<b>&", "a very long name of a student, longer than all"]
)
def test_names_are_no_formulas(name):
    _, page = page_of(system("teacher", 6, 13.0, 0.1), system(name, 2, 5.0, 0.08))
    assert len(pictures(page)) == 2
    assert "<b>&<" not in page


def test_a_teacher_that_finds_nothing_leaves_a_dash():
    nothing = system("teacher", 6, 13.0, -1.0)
    _, page = page_of(nothing, system("student", 2, 5.0, 0.1))
    assert "<b>– %</b>" in page
    assert "nan" not in page


def test_losses_of_a_system_that_found_nothing_have_no_first_passage(index):
    one, other = system("teacher", 6, 13.0, 0.1), system("student", 2, 5.0, -1.0)
    queries = {query_id: query_id for query_id in one.quality.query_ids}
    qrels = {query_id: {index.ids[0]: 1} for query_id in queries}
    (first, *_) = wins_and_losses(other, one, queries, qrels, index)["losses"]
    assert (first["relevant"], first["student_first"]) == (index.texts[0], "")


def test_colours_follow_the_scheme_of_the_reader():
    _, page = page_of(system("teacher", 6, 13.0, 0.1), system("student", 2, 5.0, 0.08))
    assert "prefers-color-scheme: dark" in page
    for svg in pictures(page):
        assert not re.search(r"#[0-9a-f]{6}", svg)
        assert "<metadata" not in svg


def test_importing_it_leaves_the_backend_of_other_plots_alone():
    script = "import matplotlib, haystack_distill.evaluation.report; print(matplotlib.get_backend())"
    shown = subprocess.run(
        [sys.executable, "-c", script],
        env={**os.environ, "MPLBACKEND": "template"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert shown.stdout.strip() == "template"
