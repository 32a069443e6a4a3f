"""KaleAligner from the vectors of every store, and its student served by the same store."""

import json
from pathlib import Path

import pytest

from haystack_distill import DistilledRetriever, KaleAligner, KaleQueryEncoder
from tests.stores.conftest import both_ways

QUERY = "river bridge stone winter"


@pytest.fixture(scope="module")
def student(filled, bert, tmp_path_factory) -> Path:
    output = tmp_path_factory.mktemp("student") / "table"
    KaleAligner(document_store=filled, teacher=bert, layers=0, epochs=2, output=str(output), progress_bar=False).run()
    return output


def test_of_a_large_index_a_sample_serves_and_all_that_is_judged(store, bert, beir, tmp_path):
    settings = {"document_store": store, "teacher": bert, "layers": 0, "epochs": 1, "progress_bar": False}
    some = KaleAligner(**settings, output=str(tmp_path / "some"), max_documents=40).run()
    index = some["metrics"]["provenance"]["index"]
    assert index["sampled_from"] == 60
    assert 20 < index["documents"] < 55
    judged = KaleAligner(**settings, output=str(tmp_path / "judged"), max_documents=40).run(test=str(beir))
    assert judged["metrics"]["provenance"]["index"]["documents"] == 60, "every document of this index is judged"


def test_a_student_remembers_the_index_it_was_made_for(student, backend):
    index = json.loads((student / "haystack_distill.json").read_text())["index"]
    assert (index["documents"], index["dim"], index["normalized"]) == (60, 32, True)
    assert index["similarity"] == backend.similarities[0]
    assert len(index["fingerprint"]) == 64


def test_the_student_serves_the_store_it_was_made_for(student, backend, filled):
    retriever = DistilledRetriever(
        retriever=backend.retriever_of(filled), query_encoder=KaleQueryEncoder(model=str(student)), top_k=5
    )
    assert len(both_ways(retriever, query=QUERY)) == 5
