"""A store is known in one file: what is told of it elsewhere says the same."""

import re
from pathlib import Path

import pytest

from haystack_distill.data.similarity import SIMILARITIES
from haystack_integrations.components.distill.stores import similarity_of
from haystack_integrations.components.distill.stores.base import StoreKind
from haystack_integrations.components.distill.stores.known import KINDS, kind_named, kind_of
from tests.stores.conftest import BACKENDS
from tests.stores.test_docs import DOCS


def test_every_known_store_is_in_the_contract():
    assert {backend.kind.name for backend in BACKENDS} == set(KINDS)


def test_every_file_is_a_known_store():
    folder = Path(__file__).parents[2] / "haystack_integrations/components/distill/stores/known"
    assert len(list(folder.glob("[!_]*.py"))) == len(KINDS)


def test_the_table_of_the_docs():
    """Each known store has a row, which says what it ranks by, its default first."""
    rows = [line.strip("| ").split(" | ") for line in DOCS.read_text().splitlines() if line.startswith("| ")]
    assert {row[0]: row[3] for row in rows if len(row) == 5} == {
        kind.title: ", ".join(kind.similarities.values()).replace("_", " ") for kind in KINDS.values()
    } | {"store": "ranks by (default first)"}


def test_what_to_raise_is_in_the_docs():
    """Each setting that the package names for an approximate search is in the row of its store."""
    _, _, section = DOCS.read_text().partition("## Effort of an approximate search")
    for kind in KINDS.values():
        row = next((line for line in section.splitlines() if line.startswith(f"| {kind.title} | `")), "")
        assert bool(row) == (kind.effort is not None), kind.title
        assert all(f"`{word}`" in row for word in re.findall("`([a-zA-Z_:]+)`", kind.effort or "") if word != "index")


def test_a_store_is_of_the_kind_that_is_told_of_it(filled, backend):
    assert kind_of(filled) is backend.kind
    assert kind_named(filled.to_dict()["type"]) is backend.kind
    assert similarity_of(filled) == backend.similarities[0]
    assert set(backend.similarities) <= set(SIMILARITIES)


def test_a_store_that_extends_a_known_one_is_of_its_kind():
    class Extended(type("InMemoryDocumentStore", (), {})):
        pass

    assert kind_of(Extended()).title == "InMemory"


@pytest.mark.parametrize("word", ["l2_norm", "L2", "euclidean"])
def test_the_usual_words_of_other_stores_are_understood(word):
    class Elsewhere:
        similarity = word

    assert kind_of(Elsewhere()) == StoreKind()
    assert similarity_of(Elsewhere()) == "euclidean"


def test_a_word_that_means_nothing_here_is_named():
    class Elsewhere:
        similarity = "hamming"

    with pytest.raises(ValueError, match="Elsewhere ranks by 'hamming', which is none of cosine, dot_product"):
        similarity_of(Elsewhere())
