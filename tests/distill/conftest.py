"""A labelled training set of the small index."""

import pytest

from haystack_distill.data.training_set import Row, write_training_set
from haystack_distill.evaluation.quality import ranking, search


@pytest.fixture
def rows(teacher, passages, index):
    """Two sentences of each document are its queries; the teacher knows which document they stand in."""
    queries = {
        f"t{number}": text
        for number, text in enumerate(
            sentence for passage in passages.values() for sentence in passage.split(". ")[:2] if sentence
        )
    }
    vectors = teacher.encode_queries(list(queries.values()))
    run = search(index, list(queries), vectors, depth=8)
    made = []
    for number, (vector, (query_id, text)) in enumerate(zip(vectors, queries.items(), strict=True)):
        documents = ranking(run[query_id])
        if f"d{number // 2}" not in documents:
            documents[-1] = f"d{number // 2}"
        place = {document: row for row, document in enumerate(index.ids)}
        scores = [float(index.ranking_vectors[place[document]] @ vector) for document in documents]
        right = [2.0 if document == f"d{number // 2}" else 0.1 * rank for rank, document in enumerate(documents)]
        made.append(Row(query_id, text, [], documents, [passages[one] for one in documents], scores, right))
    return made


@pytest.fixture
def training_set(rows, tmp_path):
    return write_training_set(
        tmp_path / "set", rows, source="test", retriever="bert", similarity="cosine", teacher={"model": "oracle"}
    )
