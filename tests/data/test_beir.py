"""Judgments and questions as people write them: each fault is one sentence with its file and line."""

import json

import pytest

from haystack_distill.data.beir import read_beir, read_corpus, read_queries
from haystack_distill.data.questions import read_questions
from tests.conftest import write_beir

DOCUMENTS = {"d1": "one", "d2": "two", "d3": "three"}
QUERIES = {"q1": "first?", "q2": "second?"}
ENDLESS = pytest.param("9" * 5000, id="5,000 digits")
HEADER = "query-id\tcorpus-id\tscore\n"


@pytest.fixture
def folder(tmp_path):
    return write_beir(tmp_path / "beir", DOCUMENTS, QUERIES, {"test": {"q1": "d1"}})


def judged(folder, text, encoding="utf-8"):
    (folder / "qrels" / "test.tsv").write_bytes(text.encode(encoding))
    return read_beir(folder).qrels["test"]


def test_a_file_without_a_header_keeps_its_first_judgment(folder):
    assert judged(folder, "q1\td1\t1\nq2\td2\t1\n") == {"q1": {"d1": 1}, "q2": {"d2": 1}}
    assert judged(folder, f"{HEADER}q1\td1\t1\n\n") == {"q1": {"d1": 1}}


def test_grades_are_kept_and_those_of_zero_or_below_left_out(folder):
    rows = "q1\td1\t3\nq1\td2\t0\nq1\td3\t-2\nq2\td2\t1\n"
    assert judged(folder, HEADER + rows) == {"q1": {"d1": 3}, "q2": {"d2": 1}}


@pytest.mark.parametrize("grade", ["--1", "²", "1.5", "yes", "", ENDLESS])
def test_a_grade_that_is_no_whole_number_is_named_by_its_line(folder, grade):
    with pytest.raises(
        ValueError, match=r"test\.tsv, line 2: expected query-id, corpus-id and a whole-number"
    ) as error:
        judged(folder, f"{HEADER}q1\td1\t{grade}\n")
    assert len(str(error.value)) < 400


@pytest.mark.parametrize("grade", ["--1", "²", "1.5", ENDLESS])
def test_a_first_line_with_a_broken_grade_is_no_header(folder, grade):
    with pytest.raises(ValueError, match=r"test\.tsv, line 1: expected query-id"):
        judged(folder, f"q1\td1\t{grade}\nq2\td2\t1\n")


def test_trec_s_four_columns_are_refused_at_once(folder):
    with pytest.raises(ValueError, match=r"test\.tsv, line 1: expected query-id"):
        judged(folder, "q1\t0\td1\t1\n")


def test_judgments_in_another_encoding_are_named(folder):
    with pytest.raises(ValueError, match=r"test\.tsv is not UTF-8 text .*save it as UTF-8"):
        judged(folder, f"{HEADER}q1\tcafé\t1\n", "latin-1")


def test_judgments_that_begin_with_a_bom_are_read(folder):
    assert judged(folder, "q1\td1\t1\n", "utf-8-sig") == {"q1": {"d1": 1}}


def test_a_cell_without_end_is_named(folder):
    with pytest.raises(ValueError, match=r"test\.tsv, line 2: .*field larger"):
        judged(folder, f"{HEADER}q1\t{'d' * 200_000}\t1\n")


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ('{"_id": "q", "text": ' + "[" * 100_000, "recursion"),
        ('{"_id": ' + "9" * 5000 + ', "text": "a"}', "number out of range"),
        ('{"_id": "q", "text": "half an emoji \\ud83d"}', "a lone surrogate"),
        ("[]", "an object, not \\[\\]"),
        ("\ufeff{}", "BOM"),
    ],
    ids=["deep", "digits", "surrogate", "list", "bom"],
)
@pytest.mark.parametrize("read", [read_queries, read_questions])
def test_lines_that_no_reader_can_make_sense_of(tmp_path, read, line, says):
    (tmp_path / "q.jsonl").write_text(f'{{"_id": "a", "text": "fine"}}\n\n{line}\n', encoding="utf-8")
    with pytest.raises(ValueError, match=rf"q\.jsonl, line 3: expected .*{says}"):
        read(tmp_path / "q.jsonl")


@pytest.mark.parametrize("read", [read_queries, read_questions])
def test_the_line_in_another_encoding_is_named(tmp_path, read):
    (tmp_path / "q.jsonl").write_bytes(b'{"_id": "a", "text": "fine"}\n{"_id": "b", "text": "caf\xe9"}\n')
    with pytest.raises(ValueError, match=r"q\.jsonl is not UTF-8 text \(line 2"):
        read(tmp_path / "q.jsonl")


def test_a_whole_emoji_and_its_escape_are_read(tmp_path):
    (tmp_path / "q.jsonl").write_text('{"_id": "a", "text": "\\ud83d\\ude00"}\n{"_id": "b", "text": "😀"}\n')
    assert read_queries(tmp_path / "q.jsonl") == {"a": "😀", "b": "😀"}


def test_questions_of_a_folder_whose_corpus_lacks_an_id(folder):
    (folder / "corpus.jsonl").write_text('{"text": "no id"}\n')
    with pytest.raises(ValueError, match=r"corpus\.jsonl, line 1: expected a JSON object with the keys _id and text"):
        read_questions(folder, "test")


@pytest.mark.parametrize(
    ("extra", "answers"),
    [
        ({"metadata": "none"}, []),
        ({"metadata": {"answers": "one"}}, ["one"]),
        ({"answers": {"text": ["a", "b"], "answer_start": [0, 3]}}, ["a", "b"]),
        ({"answers": {}}, []),
        ({"answers": ["a", 3]}, ["a", "3"]),
    ],
)
def test_answers_in_the_forms_that_data_sets_have(tmp_path, extra, answers):
    (tmp_path / "q.jsonl").write_text(json.dumps({"_id": "a", "text": "what?", **extra}))
    assert read_questions(tmp_path / "q.jsonl")[0].answers == answers


def test_answers_that_are_none_are_named(tmp_path):
    (tmp_path / "q.jsonl").write_text('{"_id": "a", "text": "what?", "answers": 5}')
    with pytest.raises(ValueError, match=r"q\.jsonl, row 1: the answers must be a text or a list of texts, not 5"):
        read_questions(tmp_path / "q.jsonl")


def test_a_split_that_judges_nothing_relevant_has_no_questions(folder):
    (folder / "qrels" / "test.tsv").write_text(f"{HEADER}q1\td1\t0\n")
    with pytest.raises(ValueError, match=r"holds no question: test\.tsv judges nothing relevant"):
        read_questions(folder, "test")


def test_titles_are_known_apart_from_the_text_that_they_are_embedded_with(tmp_path):
    rows = [{"_id": "a", "title": "A title", "text": "A text."}, {"_id": "b", "title": " ", "text": "No title."}]
    (tmp_path / "corpus.jsonl").write_text("\n".join(map(json.dumps, rows)))
    corpus = read_corpus(tmp_path / "corpus.jsonl")
    assert corpus.documents == {"a": "A title A text.", "b": "No title."}
    assert corpus.titles == {"a": "A title"}
