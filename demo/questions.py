"""Questions that were written by hand about Python's documentation, with their passages: a BEIR folder."""

import json
from pathlib import Path

import yaml
from haystack import Document
from haystack.components.preprocessors import RecursiveDocumentSplitter

from demo.corpus import python_documentation

QUESTIONS = Path(__file__).with_name("questions.jsonl")
PIPELINES = Path(__file__).resolve().parent.parent / "pipelines"


def documents() -> list[Document]:
    """The documentation, not cut yet."""
    return [Document(content=text, meta={"source": source}) for source, text in python_documentation()]


def passages() -> list[Document]:
    """The documentation as `pipelines/indexing.yaml` cuts it."""
    indexing = yaml.safe_load((PIPELINES / "indexing.yaml").read_text(encoding="utf-8"))
    splitter = RecursiveDocumentSplitter(**indexing["components"]["splitter"]["init_parameters"])
    splitter.warm_up()
    cut: list[Document] = splitter.run(documents())["documents"]
    return cut


def write_questions(folder: Path, stored: list[Document] | None = None) -> int:
    """
    Resolve the gold passages of the questions among what was stored, and write a BEIR folder of both.

    A gold passage is named by its source and a phrase in it, because another Python cuts the text a little differently;
    questions whose passage this Python lacks are left out.

    :param folder: The folder to write.
    :param stored: The passages; None cuts the documentation as `pipelines/indexing.yaml` does.
    :returns: How many questions have their passage.
    """
    stored = stored or passages()
    by_source: dict[str, list[tuple[str, str]]] = {}
    for document in stored:
        by_source.setdefault(document.meta["source"], []).append((document.id, " ".join(document.content.split())))
    queries, judged = [], []
    for line in QUESTIONS.read_text(encoding="utf-8").splitlines():
        question = json.loads(line)
        gold = {
            document_id
            for place in question["gold"]
            for document_id, text in by_source.get(place["source"], [])
            if place["phrase"] in text
        }
        if gold:
            queries.append({"_id": question["_id"], "text": question["text"]})
            judged += [f"{question['_id']}\t{document_id}\t1" for document_id in sorted(gold)]
    (folder / "qrels").mkdir(parents=True, exist_ok=True)
    corpus = [{"_id": document.id, "text": document.content} for document in stored]
    for name, rows in (("corpus", corpus), ("queries", queries)):
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    header = "query-id\tcorpus-id\tscore"
    (folder / "qrels" / "test.tsv").write_text("\n".join([header, *judged]) + "\n", encoding="utf-8")
    return len(queries)
