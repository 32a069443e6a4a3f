"""The table of all systems: it runs, its rows say what they should, and nothing of test is learnt."""

import json

import pytest
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.text import Text

from benchmarks import retrieval, retrieval_latency, retrieval_picture, retrieval_rows, retrieval_systems
from tests.benchmarks.conftest import ASKED

FIELDS = {
    *("data", "system", "side", "ndcg@10", "ci_low", "ci_high", "recall@10", "p", "ms", "training_seconds"),
    *("share_of_teacher", "share_low", "share_high", "share_of_hybrid"),
}
COMMON = {"corpus": None, "reader": None, "dtype": None, "keep_students": False, "latency": False, "quick": True}


@pytest.fixture
def ask(leaking, bert, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)

    def main(systems=None, **changes):
        named = {
            **COMMON,
            "data": [leaking],
            "model": bert,
            "cache": tmp_path / "cache",
            "json": tmp_path / "rows.json",
        }
        retrieval.main(systems=systems, **{**named, **changes})
        return json.loads((tmp_path / "rows.json").read_text())

    return main


def by_name(rows):
    return {(row["system"], row["side"]): row for row in rows}


def test_all_systems_are_measured_and_none_learns_what_test_asks(ask, trained_on):
    names = {name for name, _ in retrieval_systems.SYSTEMS if not name.endswith("-2")}  # as those of one layer
    rows = ask([*names, "encoder+*", "layers-1+*"])
    found = by_name(rows)
    alone = {(row["system"], row["side"]) for row in rows if "+" not in row["system"]}
    assert alone == {key for key in retrieval_systems.SYSTEMS if key[0] in names} - {("reader-16", "")}
    ways = {way for name in found if (way := name[0].partition("+")[2])}
    assert ways == {"rrf", "dbsf", "convex", "oracle"}
    assert len(rows) == len(alone) + 4 * 3
    assert ASKED.lower() not in trained_on
    assert len([text for text in trained_on if text.endswith("?")]) == 59, "the other train queries are learnt"
    for row in rows:
        assert row.keys() >= FIELDS
        assert row["ci_low"] <= row["ndcg@10"] <= row["ci_high"]
        assert row["share_of_teacher"] == pytest.approx(row["ndcg@10"] / found["encoder", ""]["ndcg@10"])
        assert row["share_of_hybrid"] == pytest.approx(row["ndcg@10"] / found["encoder+rrf", ""]["ndcg@10"])
    assert found["encoder", ""]["share_of_teacher"] == 1
    assert found["encoder", ""]["p"] is None
    for name, side in (("encoder", ""), ("layers-1", "index"), ("layers-1", "queries")):
        best = found[f"{name}+oracle", side]["ndcg@10"]
        assert best >= found[f"{name}+convex", side]["ndcg@10"]
        assert best >= max(found[name, side]["ndcg@10"], found["bm25", ""]["ndcg@10"]) - 1e-9, "weights 1 and 0"


def test_a_row_is_made_once_and_a_student_serves_many(ask, monkeypatch):
    first = ask(["layers-0*/index", "cut-0"])
    assert len(first) == 6
    monkeypatch.setattr(retrieval, "row_of", lambda *_: pytest.fail("a finished row was made again"))
    assert ask(["layers-0*/index", "cut-0"]) == first


def test_students_of_other_sources_are_kept_if_that_is_asked_for(ask, monkeypatch):
    wanted = ["layers-0/index"]
    first = ask(wanted)
    for module in (retrieval_systems, retrieval_rows):
        monkeypatch.setattr(module, "CODE", "other")
    with monkeypatch.context() as patched:
        patched.setattr(retrieval_systems, "align", lambda *_, **__: pytest.fail("a student was trained again"))
        second = ask(wanted, keep_students=True)
    assert second[0]["code"] != first[0]["code"]
    assert second[0]["ndcg@10"] == first[0]["ndcg@10"]
    trained = []
    monkeypatch.setattr(retrieval_rows, "CODE", "a third")
    monkeypatch.setattr(retrieval_systems, "CODE", "a third")
    align = retrieval_systems.align
    monkeypatch.setattr(retrieval_systems, "align", lambda *given, **named: trained.append(1) or align(*given, **named))
    ask(wanted)
    assert trained


def test_latencies_are_of_rows_that_are_there(ask, monkeypatch):
    monkeypatch.setattr("haystack_distill.serving.export.MIN_SHARE", 0.0)  # random encoders lose more at int8
    monkeypatch.setattr(retrieval_latency, "QUERIES", 3)
    wanted = ["bm25", "encoder", "layers-0+rrf/index", "layers-1/index"]
    before = by_name(ask(wanted))
    assert all(row["ms"] is None for row in before.values())
    rows = by_name(ask([*wanted, "layers-2/index"], latency=True))
    assert rows.keys() == before.keys()
    for key, row in rows.items():
        assert row["ms"] > 0
        assert row["ndcg@10"] == before[key]["ndcg@10"]
        assert row["search"] == "exact, numpy"
        assert row["served_ndcg@10"] == pytest.approx(row["ndcg@10"], abs=0.1)
    assert rows["layers-0+rrf", "index"]["backend"] == "numpy"
    assert rows["encoder", ""]["backend"].startswith("onnx")
    assert rows["encoder", ""]["megabytes"] > rows["layers-1", "index"]["megabytes"]
    assert by_name(ask(wanted)) == rows, "and they are kept"


def test_a_corpus_without_train_and_dev_has_no_rows_of_either(ask, leaking, capsys):
    for split in ("train", "dev"):
        (leaking / "qrels" / f"{split}.tsv").unlink()
    names = by_name(ask(["bm25", "encoder*", "layers-0*"])).keys()
    assert not [name for name in names if name[1] == "queries" or name[0].endswith("+convex")]
    assert ("layers-0+oracle", "index") in names
    assert "no dev: no weight is fitted; no train queries" in " ".join(capsys.readouterr().out.split())


def test_a_reader_orders_the_first_sixteen(ask, reader_folder, monkeypatch):
    wanted = ["encoder", "reader-16"]
    rows = by_name(ask(wanted, reader=reader_folder("llama")))
    assert rows["reader-16", ""]["recall@10"] <= 1
    assert rows["reader-16", ""]["ndcg@10"] != rows["encoder", ""]["ndcg@10"]
    monkeypatch.setattr("benchmarks.labels.label", lambda *_, **__: pytest.fail("labels were made again"))
    for module in (retrieval_systems, retrieval_rows):
        monkeypatch.setattr(module, "CODE", "other")
    assert (
        by_name(ask(wanted, reader=reader_folder("llama")))["reader-16", ""]["ndcg@10"]
        == (rows["reader-16", ""]["ndcg@10"])
    )


def test_an_unknown_corpus_is_named(ask):
    with pytest.raises(retrieval.typer.BadParameter, match="There is no corpus 'x': choose of feedbackqa"):
        ask(data=None, corpus=["x"])


def picture_rows(*corpora):
    rows = []
    for corpus in corpora:
        for number, (name, side) in enumerate(retrieval_picture.SYSTEMS):
            for system, more in ((name, 0.0), (f"{name}+rrf", 0.05)):
                value = 0.4 + 0.05 * number + more
                row = {"data": corpus, "system": system, "side": side, "ndcg@10": value, "ms": 1.5 if number else None}
                rows.append({**row, "ci_low": value - 0.02, "ci_high": value + 0.02})
    return rows


def test_the_picture_has_no_texts_that_overlap(tmp_path, monkeypatch):
    drawn = []
    save = Figure.savefig

    def keep(figure, *rest, **named):
        drawn.append(figure)
        save(figure, *rest, **named)

    monkeypatch.setattr(Figure, "savefig", keep)
    file = tmp_path / "rows.json"
    file.write_text(json.dumps(picture_rows(*retrieval_picture.OWN_WORDS, *retrieval_picture.FROM_PASSAGE)))
    retrieval_picture.main(file, tmp_path / "picture.svg")
    content = (tmp_path / "picture.svg").read_text()
    title = "Questions written from the passage, and situations under rules"
    for text in ("FeedbackQA", "Wikipedia", "encoder, 1.5 ms", "BM25", "alone", title):
        assert f"<!-- {text} -->" in content
    unseen = {  # ticks beyond the ends of an axis are there, and not drawn
        label
        for panel in drawn[0].findobj(Axes)
        for label, place in zip(panel.get_xticklabels(), panel.get_xticks(), strict=True)
        if not panel.get_xlim()[0] <= place <= panel.get_xlim()[1]
    }
    texts = [text for text in drawn[0].findobj(Text) if text.get_visible() and text.get_text().strip()]
    texts = [text for text in texts if text not in unseen]
    boxes = [(text.get_text(), text.get_window_extent()) for text in texts]
    inside = drawn[0].bbox
    for number, (text, box) in enumerate(boxes):
        assert inside.x0 <= box.x0 < box.x1 <= inside.x1, text
        others = [other for other, second in boxes[:number] if box.overlaps(second)]
        assert not others, f"{text} lies on {others}"


def test_a_picture_of_few_rows_shows_what_is_there(tmp_path):
    file = tmp_path / "rows.json"
    file.write_text(json.dumps([row for row in picture_rows("demo") if row["system"] in {"bm25", "encoder"}]))
    retrieval_picture.main(file, tmp_path / "picture.svg")
    assert "token table" not in (tmp_path / "picture.svg").read_text()
    file.write_text("[]")
    with pytest.raises(retrieval.typer.BadParameter, match="has no row of feedbackqa"):
        retrieval_picture.main(file, tmp_path / "picture.svg")
