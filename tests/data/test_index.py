import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from haystack_distill.data.beir import read_beir, read_queries
from haystack_distill.data.index import Sample, open_index, read_index, stored_vectors
from haystack_distill.data.sentences import index_sentences, sample_texts
from haystack_distill.evaluation.held_out import split_index_text
from haystack_distill.files.folders import published, refuse_existing
from haystack_distill.students.bi_encoder import BiEncoder
from tests.conftest import write_beir


def pages(vectors, size=2):
    rows = [(f"d{number}", f"text {number}", vector) for number, vector in enumerate(vectors)]
    return [rows[start : start + size] for start in range(0, len(rows), size)]


def test_a_view_holds_what_the_store_holds(tmp_path):
    vectors = np.random.default_rng(0).normal(size=(5, 3)).astype(np.float32)
    view = read_index(pages(vectors.tolist()), tmp_path / "view", "dot_product")
    assert view.ids == ["d0", "d1", "d2", "d3", "d4"]
    assert view.texts[3] == "text 3"
    assert np.array_equal(view.vectors, vectors)
    assert (view.dim, len(view), view.normalized) == (3, 5, False)


def test_documents_without_a_vector_are_counted_and_left_out(tmp_path):
    view = read_index([[("a", "x", [1.0, 0.0]), ("b", "y", None)]], tmp_path / "view", "cosine")
    assert (view.ids, view.without_vector, view.without_vector_ids) == (["a"], 1, ("b",))


def test_the_similarity_may_be_found_out_from_the_vectors(tmp_path):
    seen = []
    view = read_index(
        pages([[1.0, 0.0], [0.6, 0.8]]), tmp_path / "view", lambda vectors: (seen.append(vectors.shape), "cosine")[1]
    )
    assert (view.similarity, seen) == ("cosine", [(2, 2)])


def test_an_error_while_reading_leaves_nothing_behind(tmp_path):
    def broken():
        yield [("a", "x", [1.0, 0.0])]
        raise ConnectionError

    with pytest.raises(ConnectionError):
        read_index(broken(), tmp_path / "view", "cosine")
    assert not (tmp_path / "view").exists()


def test_a_sample_without_any_document_is_refused(tmp_path):
    with pytest.raises(ValueError, match="None of the 2 documents falls into a sample"):
        read_index(pages([[1.0, 0.0], [0.6, 0.8]]), tmp_path / "view", "cosine", Sample(share=1e-18))


@pytest.mark.parametrize(
    ("vectors", "message"),
    [
        ([], "holds no documents"),
        ([None, None], "all 2 documents lack an embedding"),
        ([[1.0, 2.0], [1.0, 2.0, 3.0]], "'d1' has 3 dimensions and the ones before it have 2"),
        ([[1.0, float("nan")]], "'d0' holds NaN or infinite"),
        ([[1.0, 1.0], [0.0, 0.0]], "'d1' is all zeros"),
    ],
)
def test_unusable_vectors_are_named_and_leave_nothing_behind(vectors, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        read_index(pages(vectors), tmp_path / "view", "cosine")
    assert not (tmp_path / "view").exists()


def test_duplicate_ids_are_refused(tmp_path):
    with pytest.raises(ValueError, match="'a' twice"):
        read_index([[("a", "x", [1.0]), ("a", "y", [2.0])]], tmp_path / "view", "cosine")


def test_an_id_that_comes_again_is_found_however_many_came_between(tmp_path):
    numbers = np.random.default_rng(0).permutation(3_000)
    rows = [(f"d{number}", "x", [1.0, float(number)]) for number in numbers]
    sizes = [1, 7, 500, 0, 492, 1_000, 3, 997]
    ends = np.cumsum(sizes)
    several = [rows[end - size : end] for size, end in zip(sizes, ends, strict=True)]
    assert len(read_index(several, tmp_path / "view", "cosine")) == 3_000
    for again in (0, 5, 800, 2_999):
        name = rows[again][0]
        with pytest.raises(ValueError, match=f"{name!r} twice"):
            read_index([*several, [("new", "x", [1.0, 0.5]), rows[again]]], tmp_path / f"again-{again}", "cosine")


@pytest.mark.parametrize(
    ("document_id", "text", "message"),
    [
        (7, "x", "a document with the id 7: ids must be texts"),
        (None, "x", "a document with the id None: ids must be texts"),
        ("half \ud83d", "x", r"The id of the document 'half \\ud83d' holds half a character \('\\ud83d'"),
        ("a", "half \ud83d", r"The text of the document 'a' holds half a character \('\\ud83d'"),
    ],
)
def test_ids_and_texts_that_can_not_be_written_are_named(document_id, text, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        read_index([[(document_id, text, [1.0])]], tmp_path / "view", "cosine")
    assert not (tmp_path / "view").exists()


def test_an_unknown_similarity_is_refused(tmp_path):
    with pytest.raises(ValueError, match="'hamming' is not known"):
        read_index([], tmp_path / "view", "hamming")


def test_euclidean_distance_needs_vectors_of_length_one(tmp_path):
    with pytest.raises(ValueError, match="euclidean distance"):
        read_index(pages([[1.0, 1.0]]), tmp_path / "view", "euclidean")
    assert read_index(pages([[1.0, 0.0]]), tmp_path / "fine", "euclidean").normalized


def test_a_truncated_view_is_noticed(tmp_path):
    read_index(pages([[1.0, 0.0], [0.0, 1.0], [0.6, 0.8]]), tmp_path / "view", "cosine")
    file = tmp_path / "view" / "vectors.f32"
    file.write_bytes(file.read_bytes()[:-4])
    with pytest.raises(ValueError, match="truncated"):
        open_index(tmp_path / "view")


def test_a_changed_view_is_noticed(tmp_path):
    read_index(pages([[1.0, 0.0], [0.0, 1.0], [0.6, 0.8]]), tmp_path / "view", "cosine")
    file = tmp_path / "view" / "vectors.f32"
    file.write_bytes(np.array([1.0, 0.0, 0.0, 1.0, 0.8, 0.6], dtype=np.float32).tobytes())
    with pytest.raises(ValueError, match="was changed"):
        open_index(tmp_path / "view")


def test_the_fingerprint_changes_with_the_vectors_and_not_with_their_order(tmp_path):
    rows = [("a", "x", [1.0, 0.0]), ("b", "y", [0.0, 1.0])]
    first = read_index([rows], tmp_path / "1", "cosine").fingerprint
    assert read_index([rows[::-1]], tmp_path / "2", "cosine").fingerprint == first
    changed = [rows[0], ("b", "y", [0.1, 1.0])]
    assert read_index([changed], tmp_path / "3", "cosine").fingerprint != first


@settings(max_examples=30, deadline=None)
@given(st.lists(st.lists(st.floats(-5, 5, width=32), min_size=4, max_size=4), min_size=1, max_size=12))
def test_ranking_vectors_rank_by_cosine(tmp_path_factory, rows):
    """Their inner product with a query orders documents as their cosine does."""
    vectors = np.array(rows, dtype=np.float32)
    vectors[np.linalg.norm(vectors, axis=1) < 1e-3] = 1.0
    view = read_index(pages(vectors), tmp_path_factory.mktemp("view") / "v", "cosine")
    query = np.array([1.0, -2.0, 0.5, 3.0])
    cosines = vectors @ query / np.linalg.norm(vectors, axis=1)
    assert np.allclose(view.ranking_vectors @ query, cosines, atol=2e-3 * np.abs(cosines).max() + 1e-4)


def test_vectors_are_embedded_once_for_the_same_texts(tmp_path):
    calls = []

    def encode():
        calls.append(1)
        return np.ones((1, 2), dtype=np.float32)

    for texts in (["a"], ["a"], ["b"]):
        stored_vectors(tmp_path / "v.npy", texts, encode)
    assert len(calls) == 2


def test_a_folder_appears_only_when_it_is_complete(tmp_path):
    def write(fail):
        with published(tmp_path / "out") as folder:
            (folder / "part").write_text("x")
            if fail:
                raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write(fail=True)
    assert not (tmp_path / "out").exists()
    write(fail=False)
    assert (tmp_path / "out" / "part").read_text() == "x"
    with pytest.raises(FileExistsError, match="exists already: name a new one"):
        refuse_existing(tmp_path / "out")


# The encoder and the index belong together


def test_the_right_encoder_is_accepted(teacher, index):
    teacher.check_belongs_to(index)


def test_another_encoder_is_noticed(index, make_encoder):
    other = BiEncoder.load(make_encoder("bert", seed=7), device="cpu")
    with pytest.raises(ValueError, match="not made by this encoder"):
        other.check_belongs_to(index)


def test_another_dimension_is_noticed(bert, index):
    with pytest.raises(ValueError, match="32 dimensions and the encoder makes 16"):
        BiEncoder.load(bert, dim=16, device="cpu").check_belongs_to(index)


def test_a_missing_prefix_is_named(bert, passages, tmp_path):
    prefixed = BiEncoder.load(bert, document_prefix="thunder lantern candle jacket ", device="cpu")
    vectors = prefixed.encode_documents(list(passages.values()))
    view = read_index([list(zip(passages, passages.values(), vectors, strict=True))], tmp_path / "view", "cosine")
    plain = BiEncoder.load(bert, device="cpu")
    plain.model.prompts["passage"] = "thunder lantern candle jacket "
    with pytest.raises(ValueError, match="set `document_prefix` to 'thunder lantern"):
        plain.check_belongs_to(view)


def test_a_missing_normalisation_is_named(make_encoder, passages, tmp_path):
    name = make_encoder("bert", normalize=False)
    vectors = BiEncoder.load(name, normalize=True, device="cpu").encode_documents(list(passages.values()))
    view = read_index([list(zip(passages, passages.values(), vectors, strict=True))], tmp_path / "view", "dot_product")
    with pytest.raises(ValueError, match="normalize_embeddings"):
        BiEncoder.load(name, device="cpu").check_belongs_to(view)


def test_more_dimensions_than_the_encoder_has(bert):
    with pytest.raises(ValueError, match="32 dimensions, so 64"):
        BiEncoder.load(bert, dim=64, device="cpu")


# Text


def test_sentences_and_titles_are_cut_out():
    text = "The title\n\nA first sentence here. And a second one!  Is this the\nthird? No."
    both = ["A first sentence here.", "And a second one!", "Is this the third?"]
    assert index_sentences([text, f"{both[0]} Something else here. {both[0]}", text]) == {
        both[0]: [0, 1, 2],
        both[1]: [0, 2],
        both[2]: [0, 2],
        "Something else here.": [1],
    }


def test_line_breaks_that_are_meant_part_texts_and_those_of_wrapped_prose_do_not():
    """A title over a body, as embedders join them; a list; and prose that was wrapped at a width, or by hand."""
    title = "How to sort a list\nUse sorted for that thing, it is quite fast."
    steps = "Open the file first\n- read all the lines\n- close it again after that, always."
    wrapped = "The wrapped text that goes on\nUntil its very end is reached\nAfter some lines."
    by_hand = "Some people break\ntheir lines where they like to, which is fine."
    assert list(index_sentences([title, steps, wrapped, by_hand])) == [
        "How to sort a list",
        "Use sorted for that thing, it is quite fast.",
        "Open the file first",
        "- read all the lines",
        "- close it again after that, always.",
        "The wrapped text that goes on Until its very end is reached After some lines.",
        "Some people break their lines where they like to, which is fine.",
    ]


def test_held_out_sentences_are_not_trained_on(index):
    parts = split_index_text(index, seed=0)
    dev, proof, rest = set(parts.dev.values()), set(parts.proof.values()), set(parts.rest)
    assert len(dev) == len(proof) == 9
    assert not (dev & proof or dev & rest or proof & rest)
    assert split_index_text(index, seed=0) == parts
    assert split_index_text(index, seed=1) != parts


def test_given_queries_come_first_when_there_is_too_much_text():
    texts = sample_texts(["q1", "q2", "q1"], [f"s{number}" for number in range(50)], limit=10, seed=0)
    assert texts[:2] == ["q1", "q2"]
    assert len(texts) == len(set(texts)) == 10


def test_text_of_the_index_is_not_crowded_out_by_other_texts():
    queries, own, other = (["q1", "q2"], [f"s{number}" for number in range(8)], [f"t{number}" for number in range(90)])
    texts = sample_texts(queries, own, [*own, *other], limit=20, seed=0)
    assert texts[:10] == [*queries, *own]
    assert len(set(texts)) == 20
    assert set(texts[10:]) < set(other)


# BEIR


def test_a_beir_folder_is_read(beir, passages):
    data = read_beir(beir)
    assert data.documents == passages
    assert {split: len(judged) for split, judged in data.qrels.items()} == {"train": 30, "dev": 10, "test": 20}
    assert data.texts_of("dev")[0] == data.queries["q30"]


def test_titles_are_part_of_documents(tmp_path):
    write_beir(tmp_path / "b", {}, {"q": "x"}, {})
    row = {"_id": 1, "title": "A title", "text": "and a text"}
    (tmp_path / "b" / "corpus.jsonl").write_text(json.dumps(row) + "\n")
    assert read_beir(tmp_path / "b").documents == {"1": "A title and a text"}


@pytest.mark.parametrize(
    ("file", "content", "message"),
    [
        ("corpus.jsonl", '{"_id": "d0"}\n', "corpus.jsonl, line 1: expected a JSON object with the keys _id and text"),
        ("corpus.jsonl", '{"_id": "d0", "text": 5}\n', "corpus.jsonl, line 1: expected .*, the latter a text"),
        ("queries.jsonl", '{"_id": "q0", "text": "a"}\n\n{broken\n', "queries.jsonl, line 3"),
        ("corpus.jsonl", '{"_id": 1, "text": "a"}\n{"_id": "1", "text": "b"}\n', "line 2: the _id '1' is there twice"),
        ("queries.jsonl", '["q0", "a"]\n', "queries.jsonl, line 1: expected a JSON object .*, not"),
        ("qrels/test.tsv", "query-id\tcorpus-id\tscore\nq0\td0\n", "test.tsv, line 2: expected query-id"),
        ("qrels/test.tsv", "query-id\tcorpus-id\tscore\nq99\td0\t1\n", "the query 'q99' is judged but"),
        ("qrels/test.tsv", "query-id\tcorpus-id\tscore\nq0\td99\t1\n", "the document 'd99' is judged but"),
    ],
)
def test_a_broken_beir_folder_is_named_by_file_and_line(file, content, message, beir):
    (beir / file).write_text(content)
    with pytest.raises(ValueError, match=message):
        read_beir(beir)


def test_a_file_in_another_encoding_is_named(beir):
    (beir / "corpus.jsonl").write_bytes('{"_id": "d0", "text": "caf\u00e9"}\n'.encode("latin-1"))
    with pytest.raises(ValueError, match=r"corpus\.jsonl is not UTF-8 text"):
        read_beir(beir)


def test_a_folder_without_a_corpus(tmp_path):
    with pytest.raises(FileNotFoundError, match="corpus.jsonl is missing"):
        read_beir(tmp_path)


def test_an_empty_query_is_named(tmp_path):
    (tmp_path / "q.jsonl").write_text('{"_id": "a", "text": " "}\n')
    with pytest.raises(ValueError, match="the query 'a' is empty"):
        read_queries(tmp_path / "q.jsonl")
