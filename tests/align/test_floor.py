"""A real encoder and people's questions, from end to end: below these figures something is broken."""

from dataclasses import replace

from haystack.document_stores.in_memory import InMemoryDocumentStore

from demo.questions import passages, write_questions
from haystack_distill import KaleAligner
from haystack_distill.students.bi_encoder import BiEncoder

OTHERS = 60
"""One of so many passages of Python's documentation that answer no question is in the index, too."""


def test_a_table_of_the_index_alone_keeps_most_of_minilm(minilm, tmp_path):
    everything = passages()
    write_questions(tmp_path / "all", everything)
    judged = (tmp_path / "all" / "qrels" / "test.tsv").read_text().splitlines()[1:]
    gold = {line.split("\t")[1] for line in judged}
    some = [document for document in everything if document.id in gold]
    some += [document for document in everything if document.id not in gold][::OTHERS]
    assert write_questions(tmp_path / "some", some) > 140
    vectors = BiEncoder.load(minilm, device="cpu").encode_documents([document.content for document in some])
    store = InMemoryDocumentStore(embedding_similarity_function="cosine")
    store.write_documents([replace(one, embedding=each) for one, each in zip(some, vectors.tolist(), strict=True)])
    metrics = KaleAligner(
        document_store=store,
        teacher=minilm,
        output=str(tmp_path / "table"),
        layers=0,
        fit="ridge",
        progress_bar=False,
    ).run(test=str(tmp_path / "some"))["metrics"]
    assert metrics["teacher"]["ndcg@10"] > 0.75
    assert metrics["share_of_teacher"] > 0.9
