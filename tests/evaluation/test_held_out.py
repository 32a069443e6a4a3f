"""What is held out, and which texts ask the same."""

import json
import string
import time

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from haystack_distill.evaluation.held_out import (
    FEW_WORDS,
    Asked,
    Dev,
    Queries,
    given_queries,
    hold_out,
    judged_split,
    split_index_text,
    tenth,
    unseen,
)
from tests.conftest import sentences, write_beir

WORDS = st.sampled_from(["heron", "Heron", "river", "is", "a", "of", "the"])
SIGNS = st.sampled_from([" ", "  ", ", ", "? ", "\n", " - "])


@st.composite
def texts(draw):
    """Few different words, so that many texts are nearly the same."""
    words = draw(st.lists(WORDS, min_size=1, max_size=9))
    return "".join(word + draw(SIGNS) for word in words)


def plain(text):
    """The words of a text of ASCII letters, one letter at a time."""
    return "".join(letter.lower() if letter in string.ascii_letters else " " for letter in text).split()


def word_distance(one, other):
    """Levenshtein's table, over words."""
    table = [[max(row, column) for column in range(len(other) + 1)] for row in range(len(one) + 1)]
    for row, word in enumerate(one, start=1):
        for column, against in enumerate(other, start=1):
            changed = table[row - 1][column - 1] + (word != against)
            table[row][column] = min(changed, table[row - 1][column] + 1, table[row][column - 1] + 1)
    return table[-1][-1]


def slowly_alike(one, other):
    first, second = plain(one), plain(other)
    if first == second:
        return True
    return min(len(first), len(second)) >= FEW_WORDS and word_distance(first, second) == 1


@given(st.lists(texts(), max_size=6), st.lists(texts(), max_size=6))
def test_what_differs_in_one_word_is_found_as_a_slow_comparison_finds_it(train, judged):
    expected = [text for text in train if not any(slowly_alike(text, other) for other in judged)]
    assert unseen(train, judged) == expected


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("What is a heron?", "what  is a HERON", True),
        ("What is a heron?", "What is an egret?", False),
        ("What is a heron?", "What is a bittern?", False),  # four words: the one that differs is the question
        ("How do I feed a heron?", "How do I feed an heron", True),
        ("How do I feed a heron?", "How do I feed a young heron?", True),
        ("How do I feed a young heron?", "How do I feed a heron?", True),
        ("How do I feed a heron?", "How do I never feed a young heron?", False),
        ("heron one two three four", "one two three four heron", False),
        ("\uff37hat is a heron", "What is a heron", True),
        ("Straße am Fluss", "STRASSE AM FLUSS", True),
        ("कि", "का", False),
        ("???", "!!!", False),
        ("???", " ??? ", True),
        ("", "what", False),
    ],
)
def test_texts_that_ask_the_same(one, other, same):
    assert (one in Asked([other])) == same
    assert (other in Asked([one])) == same


def test_long_texts_cost_no_more_than_their_words():
    """Twenty thousand words, of which one is another one: leaving each out in turn would copy 400 million."""
    words = sentences(1, length=20_000)[0].split()
    changed = [*words[:9000], "otherwise", *words[9001:]]
    start = time.perf_counter()
    assert " ".join(changed) in Asked([" ".join(words)])
    assert time.perf_counter() - start < 5


@given(st.integers(0, 500), st.integers(0, 3))
def test_what_is_drawn_and_the_rest_are_everything(count, seed):
    everything = list(range(count))
    out, rest = hold_out(everything, tenth(count), seed)
    assert len(out) == count // 10
    assert sorted([*out, *rest]) == everything
    assert rest == sorted(rest)
    assert hold_out(everything, tenth(count), seed) == (out, rest)


def test_no_more_than_enough_is_held_out():
    assert [tenth(count) for count in (9, 10, 3999, 4000, 100_000)] == [0, 1, 399, 400, 400]


def write_lines(file, texts):
    file.write_text("".join(json.dumps({"_id": str(key), "text": text}) + "\n" for key, text in enumerate(texts)))
    return str(file)


class TestTestIsLeftOut:
    """Of what is learnt and of what is selected on, wherever the queries come from."""

    def test_of_the_dev_split_of_a_folder(self, beir):
        lines = [json.loads(line) for line in (beir / "queries.jsonl").read_text().splitlines()]
        lines[31]["text"] = f"{lines[52]['text']}?"
        (beir / "queries.jsonl").write_text("\n".join(map(json.dumps, lines)))
        queries = given_queries(str(beir), 0)
        assert sorted(queries.dev) == sorted({f"q{number}" for number in range(30, 40)} - {"q31"})
        assert queries.dev.keys() == queries.dev_qrels.keys()
        assert queries.left_out == {"train": 0, "dev": 1}

    def test_of_another_folder_than_the_one_that_is_tested_on(self, beir, passages):
        asked = [passages[f"d{number}"].split(". ")[0].upper() for number in (1, 2, 30, 33, 39)]
        queries = given_queries(str(beir), 0, asked)
        assert len(queries.train) == 28
        assert sorted(queries.dev) == ["q31", "q32", "q34", "q35", "q36", "q37", "q38"]
        assert queries.left_out == {"train": 2, "dev": 3}
        assert queries.without(asked) == queries

    def test_of_a_log(self, tmp_path):
        texts = [f"{text} {number}" for number, text in enumerate(sentences(600, seed=4))]
        everything = given_queries(write_lines(tmp_path / "log.jsonl", texts), 0)
        asked = [everything.train[0], next(iter(everything.dev.values()))]
        left = given_queries(write_lines(tmp_path / "log.jsonl", texts), 0, asked)
        assert left.left_out == {"train": 1, "dev": 1}
        assert not {*left.train, *left.dev.values()} & set(asked)

    def test_a_folder_all_of_whose_dev_queries_are_asked_in_test(self, passages, tmp_path):
        texts = sentences(6, seed=8)
        queries = {f"q{number}": text for number, text in enumerate([*texts, *texts[3:]])}
        qrels = {"train": ["q0", "q1", "q2"], "dev": ["q3", "q4", "q5"], "test": ["q6", "q7", "q8"]}
        judged = {split: dict.fromkeys(ids, "d1") for split, ids in qrels.items()}
        folder = write_beir(tmp_path / "same", passages, queries, judged)
        with pytest.raises(ValueError, match="All 3 dev queries are asked in the test split too"):
            given_queries(str(folder), 0)

    def test_of_judged_dev_queries(self):
        dev = Dev({"a": "One two three?", "b": "four"}, {"a": {"d": 1}, "b": {"e": 2}}, judged=True)
        assert dev.without(Asked(["one  two three"])) == Dev({"b": "four"}, {"b": {"e": 2}}, judged=True)
        with pytest.raises(ValueError, match="All 2 dev queries"):
            dev.without(Asked(["one two three", "FOUR"]))

    def test_of_the_text_of_an_index(self, index):
        parts = split_index_text(index, 0)
        asked = [parts.rest[3].upper(), next(iter(parts.dev.values()))]
        left = parts.without(Asked(asked))
        assert (len(parts.rest) - len(left.rest), len(parts.dev) - len(left.dev)) == (1, 1)
        assert left.proof == parts.proof

    def test_a_train_query_that_dev_asks_is_not_learnt(self):
        queries = Queries(["one two", "three"], {"a": "Three!"}, {"a": {"d": 1}})
        assert queries.without([]) == Queries(["one two"], {"a": "Three!"}, {"a": {"d": 1}}, {"train": 1, "dev": 0})


def test_a_split_that_judges_nothing_is_refused(index, passages, tmp_path):
    folder = write_beir(tmp_path / "b", passages, {"q": "river"}, {"test": {"q": "d1"}})
    (folder / "qrels" / "test.tsv").write_text("query-id\tcorpus-id\tscore\nq\td1\t0\n")
    with pytest.raises(ValueError, match=r"qrels/test\.tsv is missing or judges nothing"):
        judged_split(str(folder), "test", index)


def test_grades_are_kept_and_negative_judgments_are_none(index, passages, tmp_path):
    folder = write_beir(tmp_path / "b", passages, {"q": "river"}, {"test": {"q": "d1"}})
    (folder / "qrels" / "test.tsv").write_text("query-id\tcorpus-id\tscore\nq\td1\t3\nq\td2\t-1\nq\td3\t1\n")
    assert judged_split(str(folder), "test", index) == ({"q": "river"}, {"q": {"d1": 3, "d3": 1}})


def test_the_held_out_parts_of_an_index_do_not_depend_on_the_run(index):
    assert split_index_text(index, 3) == split_index_text(index, 3)
    assert np.intersect1d(split_index_text(index, 3).rest, list(split_index_text(index, 3).dev.values())).size == 0
