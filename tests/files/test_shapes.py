"""What is read from outside has the shape that it must have, or is refused by file and field."""

import pytest

from haystack_distill.files.journal import Journal
from haystack_distill.files.runs import already_made, claim
from haystack_distill.files.shapes import checked, read_yaml, refuse_halves


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ('{"a": [1, "x"]}', r"f, line 3 \(a\.1: input should be a valid integer, not 'x'\)\."),
        ('{"a b": [1.5]}', r"'a b'\.0: input should be a valid integer"),
        ("[" * 100_000, "recursion limit exceeded at column"),
        ('{"a": [' + "9" * 5000 + "]}", "number out of range"),
        ('{"\\ud83d": []}', "half a character, a lone surrogate"),
        ("\ufeff{}", "it begins with a BOM"),
        (b'{"a\xe9": []}', "invalid unicode code point"),
    ],
)
def test_what_has_another_shape_is_named_by_its_field(content, says):
    with pytest.raises(ValueError, match=says):
        checked(content, dict[str, list[int]], "f, line 3")


def test_a_value_without_end_is_shown_by_its_beginning():
    with pytest.raises(ValueError, match="not 'x+\\.\\.\\.") as error:
        checked('{"a": "' + "x" * 9000 + '"}', dict[str, list[int]], "f")
    assert len(str(error.value)) < 200


def test_half_an_emoji_is_named_before_it_is_written():
    with pytest.raises(ValueError, match=r"The query holds half a character \('\\ud83d', a lone surrogate\)"):
        refuse_halves("so \ud83d", "The query")
    refuse_halves("so \U0001f600", "The query")


@pytest.mark.parametrize("content", [b"a: [", b"\xff\xfe", b"a: " + b"9" * 5000, b"[" * 5000])
def test_yaml_that_is_none_is_named_by_its_file(tmp_path, content):
    (tmp_path / "a.yaml").write_bytes(content)
    with pytest.raises(ValueError, match=r"a\.yaml is not YAML: "):
        read_yaml(tmp_path / "a.yaml")


def test_a_damaged_line_of_a_journal_is_named_and_its_torn_end_is_not(tmp_path):
    file = tmp_path / "replies.jsonl"
    file.write_bytes(b'{"id": 1}\n{"id": 2}\n{"id":')
    assert [row["id"] for row in Journal(file).rows] == [1, 2]
    file.write_bytes(b'{"id": 1}\n\0\0\0\n{"id": 3}\n')
    with pytest.raises(ValueError, match=r"replies\.jsonl, line 2, is damaged .*: delete this line"):
        Journal(file)


@pytest.mark.parametrize("content", ["", "[]", "{", "[" * 100_000])
def test_a_record_of_a_run_that_is_damaged_is_named(tmp_path, content):
    (tmp_path / "run.json").write_text(content)
    with pytest.raises(ValueError, match=r"run\.json is damaged .*delete the folder"):
        claim(tmp_path, {"a": 1})
    with pytest.raises(ValueError, match=r"run\.json is damaged .*name another output"):
        already_made(tmp_path, "run.json", "abc")
