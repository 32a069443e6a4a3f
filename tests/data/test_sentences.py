"""Titles are texts of their own to align on, however they were embedded."""

import json

import numpy as np

from haystack_distill.cli.indexing import Documents
from haystack_distill.data.beir import read_beir
from haystack_distill.data.index import read_index
from haystack_distill.data.sentences import index_sentences
from haystack_distill.evaluation.held_out import split_index_text
from haystack_distill.students.bi_encoder import BiEncoder
from haystack_integrations.components.distill.stores import pages_of
from tests.conftest import write_beir

TITLE, FIRST, SECOND = "How to sort a list", "Use the function sorted.", "It is stable and quick."


def test_a_title_is_no_part_of_the_first_sentence():
    for between in (" ", "\n", " / ", ": ", "\n\n"):
        text = f"{TITLE}{between}{FIRST} {SECOND}"
        assert list(index_sentences([text], [TITLE])) == [TITLE, FIRST, SECOND]
    assert list(index_sentences([f"{TITLE} {FIRST}"])) == [f"{TITLE} {FIRST}"]


def test_only_documents_with_a_title_are_parted():
    both = [f"{TITLE} {FIRST}", f"{SECOND} {FIRST}", TITLE]
    assert index_sentences(both, [TITLE, "", TITLE]) == {TITLE: [0, 2], FIRST: [0, 1], SECOND: [1]}


def test_an_index_knows_its_titles_when_it_is_opened_again(tmp_path):
    rows = [("a", f"{TITLE} {FIRST}", [1.0, 0.0], TITLE), ("b", SECOND, [0.0, 1.0])]
    index = read_index([rows], tmp_path / "view", "cosine")
    assert index.titles == {"a": TITLE}
    assert set(split_index_text(index, seed=0).places) == {TITLE, FIRST, SECOND}


def test_a_folder_s_titles_are_aligned_on_and_its_vectors_are_those_of_before(bert, tmp_path):
    """The text as it is embedded stays `title text`, so an index that was made before still belongs to its encoder."""
    folder = write_beir(tmp_path / "beir", {}, {"q": "sort"}, {})
    rows = [{"_id": "a", "title": "river bridge stone", "text": "Winter market garden."}]
    rows += [{"_id": "b", "text": "Letter engine doctor."}]
    (folder / "corpus.jsonl").write_text("\n".join(map(json.dumps, rows)))
    teacher = BiEncoder.load(bert, device="cpu")
    settings = Documents.of(folder).index(teacher, bert, tmp_path / "out", progress=False)
    store = settings["document_store"]
    pages = pages_of(store, settings["meta_fields_to_embed"], settings["embedding_separator"])
    index = read_index(pages, tmp_path / "view", "cosine")
    assert dict(zip(index.ids, index.texts, strict=True)) == read_beir(folder).documents
    teacher.check_belongs_to(index)
    np.testing.assert_allclose(
        index.vectors, teacher.encode_documents(list(read_beir(folder).documents.values())), atol=1e-6
    )
    assert set(split_index_text(index, seed=0).places) == {
        "river bridge stone",
        "Winter market garden.",
        "Letter engine doctor.",
    }
