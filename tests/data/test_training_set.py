"""The data contract, and labelling that loses nothing, mixes nothing and goes on where it was."""

import json
import shutil
import subprocess
import sys
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from filelock import FileLock
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pyarrow import parquet

from haystack_distill.data.questions import read_questions
from haystack_distill.data.training_set import MANIFEST, SCHEMA, Row, TrainingSet, write_training_set
from haystack_distill.teachers.labelling import LOCK, label
from haystack_distill.teachers.prompts import UnscorableError
from haystack_distill.teachers.scores import Scored, check_candidates, check_finite
from tests.kills import kill_when, lines_in


class Lengths:
    """A teacher that likes long passages, and remembers whom it was asked about."""

    def __init__(self, **changes):
        self.identity = {"model": "lengths", "signal": "length", **changes}
        self.asked = []

    def score(self, rows):
        scored = []
        for row in rows:
            check_candidates(row, "length", answers=False)
            self.asked.append(row.query)
            scores = np.array([len(one) / ("nan" not in row.query or np.nan) for one in row.passages])
            scored.append(Scored(check_finite(row, scores), frozenset({0} if "cut" in row.query else ())))
        return scored


def rows(count=10, **changes):
    return [
        replace(Row(f"q{n}", f"query {n}", [], ["a", "b", "c"], ["x", "yyy", "zz"], [0.9, 0.5, 0.1]), **changes)
        for n in range(count)
    ]


@pytest.fixture
def unlabelled(tmp_path):
    return write_training_set(tmp_path / "set", rows(), source="test", similarity="cosine", shard_rows=4).folder


def run(folder, teacher, **options):
    return label(folder, teacher.identity, lambda: teacher, progress=False, rows_at_once=2, **options)


class TestContract:
    def test_a_row_a_query_in_shards_with_a_manifest(self, unlabelled):
        training_set = TrainingSet.open(unlabelled)
        assert training_set.shards == [f"shard-0000{n}.parquet" for n in range(3)]
        assert parquet.read_schema(unlabelled / training_set.shards[0]).equals(SCHEMA)
        assert list(training_set) == rows()
        assert len(training_set) == 10
        manifest = json.loads((unlabelled / MANIFEST).read_text())
        assert manifest["version"] == 1
        assert manifest["teacher"] is None
        assert manifest["similarity"] == "cosine"

    @settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
    @given(data=st.data())
    def test_any_texts_come_back_as_they_were(self, data, tmp_path_factory):
        text = st.text(st.characters(exclude_categories=["Cs"]))
        number = st.floats(allow_nan=False, allow_infinity=False)
        ids = data.draw(st.lists(text, min_size=1, max_size=5, unique=True))
        same = {"min_size": len(ids), "max_size": len(ids)}
        row = Row(
            data.draw(text),
            data.draw(text),
            data.draw(st.lists(text, max_size=3)),
            ids,
            data.draw(st.lists(text, **same)),
            data.draw(st.lists(number, **same)),
            data.draw(st.none() | st.lists(number, **same)),
            data.draw(st.none() | st.lists(st.integers(-9, 9), **same)),
        )
        folder = tmp_path_factory.mktemp("any") / "set"
        assert list(write_training_set(folder, [row])) == [row]

    @pytest.mark.parametrize(
        ("change", "message"),
        [
            ({"documents": ["x"]}, "3 document ids and 1 documents"),
            ({"document_ids": ["a", "b", "a"]}, "'a' comes twice for the query 'q0'"),
            ({"retriever_scores": [1.0, float("nan"), 0.0]}, "retriever_scores of the query 'q0' are not all numbers"),
            ({"teacher_scores": [1.0, float("inf"), 0.0]}, "teacher_scores of the query 'q0' are not all numbers"),
            ({"query_id": "same"}, "query id 'same' comes twice"),
            ({"documents": ["a", "half \ud83d", "c"]}, "found for the query 'q0' holds half a character"),
        ],
    )
    def test_rows_that_break_it(self, change, message, tmp_path):
        with pytest.raises(ValueError, match=message):
            write_training_set(tmp_path / "set", rows(2, **change))
        assert not (tmp_path / "set").exists()

    def test_folders_that_are_none(self, unlabelled, tmp_path):
        with pytest.raises(FileNotFoundError, match="is no training set"):
            TrainingSet.open(tmp_path)
        with pytest.raises(ValueError, match="has no teacher scores: label it"):
            TrainingSet.open(unlabelled).labelled()
        manifest = json.loads((unlabelled / MANIFEST).read_text())
        (unlabelled / MANIFEST).write_text(json.dumps({**manifest, "version": 99}))
        with pytest.raises(ValueError, match="version 99, this package reads version 1"):
            TrainingSet.open(unlabelled)
        (unlabelled / MANIFEST).write_text("{")
        with pytest.raises(ValueError, match=r"training_set\.json is damaged .*: restore it"):
            TrainingSet.open(unlabelled)
        (unlabelled / MANIFEST).write_text(json.dumps(manifest))
        (unlabelled / "shard-00001.parquet").unlink()
        with pytest.raises(FileNotFoundError, match=r"lacks its shard shard-00001\.parquet"):
            TrainingSet.open(unlabelled)

    def test_a_shard_is_no_path_out_of_its_folder(self, unlabelled):
        """A set may come from elsewhere, and labelling writes to its shards."""
        (unlabelled.parent / "elsewhere.parquet").write_bytes((unlabelled / "shard-00000.parquet").read_bytes())
        manifest = json.loads((unlabelled / MANIFEST).read_text())
        shards = {"../elsewhere.parquet": {"rows": 1}}
        (unlabelled / MANIFEST).write_text(json.dumps({**manifest, "shards": shards}))
        with pytest.raises(ValueError, match=r"training_set\.json is damaged \(shards\..*elsewhere"):
            TrainingSet.open(unlabelled)


class TestLabelling:
    def test_every_row_gets_its_scores(self, unlabelled):
        summary = run(unlabelled, Lengths())
        training_set = TrainingSet.open(unlabelled)
        assert [row.teacher_scores for row in training_set.labelled()] == [[1.0, 3.0, 2.0]] * 10
        assert [replace(row, teacher_scores=None) for row in training_set] == rows()
        assert summary["rows"] == summary["labelled"] == 10
        assert summary["first_agrees"] == 0
        assert summary["kendall_tau"] == pytest.approx(-1 / 3)
        assert summary["set_aside"] == []
        assert sorted(one.name for one in unlabelled.iterdir()) == [LOCK, *training_set.shards, MANIFEST]

    def test_a_labelled_set_is_not_scored_again(self, unlabelled):
        first = run(unlabelled, Lengths())
        again = Lengths()
        assert run(unlabelled, again) == first
        assert again.asked == []

    @pytest.mark.parametrize("change", [{"model": "other"}, {"signal": "pdist"}, {"prompt": "f00"}])
    def test_labels_of_another_teacher_are_not_mixed_in(self, change, unlabelled, tmp_path):
        class Interrupted(Lengths):
            def score(self, rows):
                if self.asked:
                    raise KeyboardInterrupt
                return super().score(rows)

        with pytest.raises(KeyboardInterrupt):
            run(unlabelled, Interrupted())
        other = Lengths(**change)
        with pytest.raises(ValueError, match=f"labels of another teacher .{next(iter(change))} was .*never mixed"):
            run(unlabelled, other)
        assert other.asked == []
        copy = TrainingSet.open(unlabelled).without_labels(tmp_path / "copy").folder
        assert run(copy, other)["labelled"] == 10

    def test_rows_that_cannot_be_scored_are_set_aside_by_name(self, tmp_path):
        bad = {3: {"query": "nan"}, 5: {"documents": ["x", " ", "z"]}, 6: {"query": "cut"}}
        mixed = [replace(row, **bad.get(number, {})) for number, row in enumerate(rows())]
        folder = write_training_set(tmp_path / "set", mixed, shard_rows=4).folder
        summary = run(folder, Lengths())
        assert summary["labelled"] == 8
        assert summary["cut_passages"] == 1
        assert [one["query_id"] for one in summary["set_aside"]] == ["q3", "q5"]
        assert "nan, not a number" in summary["set_aside"][0]["reason"]
        assert "Passage 2 of the query 'query 5' is empty" in summary["set_aside"][1]["reason"]
        training_set = TrainingSet.open(folder)
        assert [row.query_id for row in training_set if row.teacher_scores is None] == ["q3", "q5"]
        assert len(list(training_set.labelled())) == 8
        again = Lengths()
        run(folder, again)
        assert again.asked == []

    def test_a_set_without_a_single_label(self, tmp_path):
        folder = write_training_set(tmp_path / "set", rows(2, query="nan", query_id="q")[:1]).folder
        with pytest.raises(ValueError, match=r"No row of .* could be labelled. The first: The score of passage 1"):
            run(folder, Lengths())

    def test_a_teacher_that_scored_nothing_has_no_hold_on_the_set(self, tmp_path):
        """A ranker that returns too few passages sets every row aside; with the right setting it goes on."""
        folder = write_training_set(tmp_path / "set", rows(2, query="nan"), shard_rows=1).folder
        with pytest.raises(ValueError, match="could be labelled"):
            run(folder, Lengths(top_k=10))
        right = Lengths(top_k=20)
        right.score = lambda rows: [Scored(np.arange(len(row.passages)) / 1.0, frozenset()) for row in rows]
        assert run(folder, right)["labelled"] == 2
        assert TrainingSet.open(folder).manifest["teacher"]["top_k"] == 20
        with pytest.raises(ValueError, match="labels of another teacher"):
            run(folder, Lengths(top_k=30))

    def test_a_second_labeller_is_refused(self, unlabelled):
        teacher = Lengths()
        with FileLock(unlabelled / LOCK), pytest.raises(BlockingIOError, match="Another labeller works on"):
            run(unlabelled, teacher)
        assert teacher.asked == []
        assert run(unlabelled, teacher)["labelled"] == 10

    def test_a_folder_that_is_removed_meanwhile(self, unlabelled):
        teacher = Lengths()
        score = teacher.score
        teacher.score = lambda asked: (score(asked), shutil.rmtree(unlabelled))[0]
        with pytest.raises(FileNotFoundError, match="was removed while it was labelled"):
            run(unlabelled, teacher)

    def test_half_a_line_in_the_journal_is_scored_again(self, unlabelled):
        (unlabelled / ".shard-00001.parquet.labels.jsonl").write_text(
            json.dumps({"query_id": "q4", "scores": [7.0, 8.0, 9.0], "cut": 0, "reason": ""})
            + '\n{"query_id": "q5", "sc'
        )
        stopped = Lengths()
        score = stopped.score
        stopped.score = lambda asked: (
            score(asked) if len(stopped.asked) < 6 else (_ for _ in ()).throw(KeyboardInterrupt)
        )
        with pytest.raises(KeyboardInterrupt):
            run(unlabelled, stopped)
        teacher = Lengths()
        run(unlabelled, teacher)
        assert not set(teacher.asked) & set(stopped.asked), "what was written after the torn line was lost"
        scores = {row.query_id: row.teacher_scores for row in TrainingSet.open(unlabelled)}
        assert scores["q4"] == [7.0, 8.0, 9.0]
        assert scores["q5"] == [1.0, 3.0, 2.0]
        assert "query 4" not in teacher.asked


SCRIPT = """
import resource, sys, time
from pathlib import Path
from haystack_distill.teachers.labelling import label
from tests.data.test_training_set import Lengths

folder, log, pause, limit = Path(sys.argv[1]), Path(sys.argv[2]), float(sys.argv[3]), int(sys.argv[4])
if limit:
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))

class Slow(Lengths):
    def score(self, rows):
        with log.open("a") as file:
            file.writelines(row.query + "\\n" for row in rows)
        time.sleep(pause)
        return super().score(rows)

teacher = Slow()
label(folder, teacher.identity, lambda: teacher, rows_at_once=1, progress=False)
"""


class TestInterruption:
    def start(self, folder, log, pause=0.0, limit=0):
        arguments = [sys.executable, "-c", SCRIPT, str(folder), str(log), str(pause), str(limit)]
        return subprocess.Popen(arguments, cwd=Path(__file__).parents[2], stderr=subprocess.PIPE, text=True)

    def test_kill_minus_nine_loses_nothing_and_repeats_at_most_the_row_in_hand(self, tmp_path):
        folder = write_training_set(tmp_path / "set", rows(40), shard_rows=15).folder
        log = tmp_path / "scored.log"
        process = self.start(folder, log, pause=0.05)
        kill_when(lambda: lines_in(log) >= 20, process)
        with pytest.raises(ValueError, match="is labelled in part"):
            TrainingSet.open(folder).labelled()
        process = self.start(folder, log)
        assert process.wait() == 0, process.stderr.read()
        times = Counter(log.read_text().splitlines())
        assert len(times) == 40
        assert sum(times.values()) <= 41
        assert [row.teacher_scores for row in TrainingSet.open(folder).labelled()] == [[1.0, 3.0, 2.0]] * 40

    def test_a_full_disk_keeps_what_was_labelled(self, tmp_path):
        """A limit on the size of files stands for the disk: the operating system refuses the write in its middle."""
        folder = write_training_set(tmp_path / "set", rows(40), shard_rows=40).folder
        log = tmp_path / "scored.log"
        process = self.start(folder, log, limit=1500)
        _, errors = process.communicate()
        assert process.returncode == 1
        assert "Labels can't be written to" in errors
        assert "make room and start again" in errors
        before = len(log.read_text().splitlines())
        assert 3 < before < 40
        assert self.start(folder, log).wait() == 0
        assert len(log.read_text().splitlines()) == 41
        assert len(list(TrainingSet.open(folder).labelled())) == 40


class TestQuestions:
    def test_a_beir_folder_gives_one_splits_queries(self, beir):
        found = read_questions(beir, "dev")
        assert [question.id for question in found] == [f"q{number}" for number in range(30, 40)]
        assert found[0].judged == {"d30": 1}
        with pytest.raises(FileNotFoundError, match=r"no qrels/eval.tsv: name one of its splits, dev, test, train"):
            read_questions(beir, "eval")

    def test_json_lines_and_parquet(self, tmp_path):
        lines = [{"_id": 1, "text": "a?", "metadata": {"answers": ["x"]}}, {"_id": 2, "text": "b?"}]
        (tmp_path / "q.jsonl").write_text("\n".join(map(json.dumps, lines)))
        found = read_questions(tmp_path / "q.jsonl")
        assert [(one.id, one.text, one.answers) for one in found] == [("1", "a?", ["x"]), ("2", "b?", [])]
        import pyarrow as pa

        parquet.write_table(
            pa.table({"query_id": ["1"], "query": ["a?"], "answers": [["x", "y"]]}), tmp_path / "q.parquet"
        )
        assert read_questions(tmp_path / "q.parquet")[0].answers == ["x", "y"]

    @pytest.mark.parametrize(
        ("content", "message"),
        [
            ('{"_id": "1", "text": " "}', "row 1: the question is empty"),
            ('{"_id": "1", "text": "a"}\n{"_id": "1", "text": "b"}', "id '1' comes twice"),
            ("{", "line 1: expected a JSON object"),
            ("", "holds no question"),
        ],
    )
    def test_bad_files(self, content, message, tmp_path):
        (tmp_path / "q.jsonl").write_text(content)
        with pytest.raises(ValueError, match=message):
            read_questions(tmp_path / "q.jsonl")

    def test_what_is_nowhere(self, tmp_path):
        with pytest.raises(FileNotFoundError, match=r"q\.jsonl is missing"):
            read_questions(tmp_path / "q.jsonl")
        with pytest.raises(FileNotFoundError, match="no data set that could be loaded"):
            read_questions("nobody/nothing-of-the-kind")


def test_an_error_of_the_teacher_that_is_not_about_a_row_stops(unlabelled):
    teacher = Lengths()
    teacher.score = lambda _: (_ for _ in ()).throw(ConnectionError("the server is down"))
    with pytest.raises(ConnectionError, match="the server is down"):
        run(unlabelled, teacher)
    assert UnscorableError.__mro__[1] is ValueError
