"""The usage example of every component runs as it stands, in a folder that holds what it names; models are tiny."""

import inspect
import json
import re
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from haystack import Document
from haystack.dataclasses import ChatMessage
from haystack_integrations.document_stores.qdrant import QdrantDocumentStore
from huggingface_hub import constants

import haystack_distill
from haystack_distill.data.training_set import Row, TrainingSet, write_training_set
from haystack_distill.evaluation.pointer import Serving, write_pointer
from haystack_distill.files.layout import PROVENANCE
from haystack_distill.fusion.model import Fusion, Retriever
from haystack_distill.students.token_table import make_token_table
from tests.chat_server import chatting, question_about
from tests.conftest import sentences, write_beir, write_lines

COMPONENTS = sorted(name for name in haystack_distill.__all__ if name[0].isupper())
BLOCK = re.compile(r"^```python\n(.+?)^```", re.MULTILINE | re.DOTALL)


ENDS = {
    "keyword": ((8.0, 2.0), (4.0, 2.0), 0.0, 20.0),
    "dense": ((0.6, 0.2), (0.2, 0.2), -0.5, 1.0),
}
"""First and last scores of two retrievers, the lowest and the highest."""


def example_of(name: str) -> str:
    blocks = BLOCK.findall(inspect.getdoc(getattr(haystack_distill, name)))
    assert len(blocks) == 1, f"{name} has {len(blocks)} examples"
    return blocks[0]


@pytest.fixture
def named_on_the_hub(bert, reader_folder, tmp_path, monkeypatch):
    """Tiny models lie where downloads from the hub are kept, under the names of real ones."""
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    models = {
        "sentence-transformers/all-MiniLM-L6-v2": bert,
        "sentence-transformers/all-mpnet-base-v2": bert,
        "HuggingFaceTB/SmolLM2-135M-Instruct": reader_folder("llama"),
    }
    for name, folder in models.items():
        model = tmp_path / "hub" / f"models--{name.replace('/', '--')}"
        shutil.copytree(folder, model / "snapshots" / "0a1b")
        (model / "refs").mkdir()
        (model / "refs" / "main").write_text("0a1b")


@pytest.fixture(scope="module")
def workshop(bert, teacher, passages, tmp_path_factory) -> Path:
    """What examples name, as other examples make it."""
    folder = tmp_path_factory.mktemp("workshop")
    for name in ("all-MiniLM-L6-v2", "minilm-2-layers", "distilled", "replies"):
        shutil.copytree(bert, folder / "models" / name)
    (folder / "models" / "replies" / PROVENANCE).write_text(json.dumps({"settings": {"history": 4}}))
    make_token_table(teacher).save(str(folder / "models" / "minilm-table"), create_model_card=False)
    asked = {f"{key}-{n}": text.split(". ")[n] for key, text in list(passages.items())[:24] for n in (0, 1)}
    write_lines(folder / "questions.jsonl", [{"_id": key, "text": text} for key, text in asked.items()])
    fusion = Fusion("min-max", 100, tuple(Retriever(name, 0.5, True, *ends) for name, ends in ENDS.items()))
    (folder / "models" / "hybrid").mkdir()
    (folder / "models" / "hybrid" / "fusion.json").write_text(json.dumps(fusion.content()))
    turned = {f"q{n}": " ".join(reversed(text.split()[:8])) for n, text in enumerate(passages.values())}
    qrels = {split: {f"q{n}": f"d{n}" for n in range(30)} for split in ("dev", "test")}
    write_beir(folder / "questions", passages, turned, qrels)
    rows = found_for(asked, teacher, passages)
    labelled = [replace(row, teacher_scores=[common_words(row.query, text) for text in row.documents]) for row in rows]
    for name, rows_of, labeller in (("unlabelled", rows, None), ("labelled", labelled, {"model": "common words"})):
        write_training_set(folder / name, rows_of, source="questions", similarity="cosine", teacher=labeller)
    turns = sentences(120, seed=8)
    dialogues = [{"_id": f"c{n}", "turns": turns[4 * n : 4 * n + 4]} for n in range(30)]
    write_lines(folder / "responses.jsonl", dialogues)
    return folder


def common_words(query: str, text: str) -> float:
    return float(len(set(query.split()) & set(text.split())))


def found_for(asked: dict[str, str], teacher: Any, passages: dict[str, str]) -> list[Row]:
    """The nearest passages of each question."""
    scores = teacher.encode_queries(list(asked.values())) @ teacher.encode_documents(list(passages.values())).T
    ids = list(passages)
    nearest = [sorted(range(len(ids)), key=lambda place: -row[place])[:5] for row in scores]
    return [
        Row(
            query_id=key,
            query=text,
            answers=[text.split()[0]],
            document_ids=[ids[place] for place in places],
            documents=[passages[ids[place]] for place in places],
            retriever_scores=[float(row[place]) for place in places],
        )
        for (key, text), places, row in zip(asked.items(), nearest, scores, strict=True)
    ]


@pytest.fixture
def places(store, bert, documents, workshop, place):
    """The workshop, in which an index is named by a pointer, another is to be replaced, and a third is empty."""
    shutil.copytree(workshop, place, dirs_exist_ok=True)
    settings = {"embedding_dim": 32, "similarity": "cosine", "progress_bar": False}
    served = QdrantDocumentStore(path="served", **settings)
    served.write_documents(documents)
    write_pointer("current.json", Serving(bert, bert, served.to_dict()))
    served.close()
    old, new = (QdrantDocumentStore(path=name, **settings) for name in ("old", "new"))
    old.write_documents(documents)
    yield {"document_store": store, "old_store": old, "new_store": new}
    old.close()
    new.close()


@pytest.fixture
def chat_server(monkeypatch):
    """A server of OpenAI's kind, where its client looks for one."""
    with chatting(lambda body: "[1] > [2]" if "identifier" in str(body) else question_about(body)) as (_, url):
        monkeypatch.setenv("OPENAI_BASE_URL", url)
        monkeypatch.setenv("OPENAI_API_KEY", "none")
        yield


@pytest.mark.usefixtures("named_on_the_hub", "chat_server")
@pytest.mark.parametrize("name", COMPONENTS)
def test_the_example_runs(name, places, documents, place):
    code = example_of(name)
    if name == "IndexSwitcher":
        (place / "current.json").unlink()
    scored = [Document(id="a", content="Yes.", score=0.9), Document(id="b", content="No.", score=0.1)]
    names: dict[str, Any] = {
        **places,
        "documents": scored if name == "ReplySelector" else documents,
        "keyword_documents": [Document(id="a", content="Yes.", score=9.0), Document(id="b", content="No.", score=3.0)],
        "dense_documents": scored,
        "messages": [ChatMessage.from_user("Do you like jazz?")],
    }
    if 'run(training_set="training_set")' in code:
        shutil.copytree("unlabelled" if name == "TeacherLabeller" else "labelled", "training_set")
    if 'run(training_set="responses")' in code:
        run(example_of("ResponseSetBuilder"), {})
    for output in re.findall(r'output="(.+?)"', code):
        shutil.rmtree(output, ignore_errors=True)
    run(code, names)
    assert CHECKS[name](names), f"the example of {name} makes something else"


def run(code: str, names: dict[str, Any]) -> None:
    exec(compile(code, "example", "exec"), names)  # noqa: S102


CHECKS = {
    "CurrentRetriever": lambda names: len(names["documents"]) == 10,
    "DialogueQuery": lambda names: "jazz" in names["query"],
    "DistillationLoop": lambda _: Path("models/minilm-dkrr/rounds.json").is_file(),
    "DistilledHybridRetriever": lambda names: names["documents"][0].meta["retriever_scores"].keys() <= ENDS.keys(),
    "DistilledJoiner": lambda names: [document.id for document in names["documents"]] == ["a", "b"],
    "DistilledRetriever": lambda names: len(names["documents"]) == 5,
    "FusionDistiller": lambda names: sum(names["result"]["metrics"]["weights"].values()) == pytest.approx(1),
    "GenerativeAugmenter": lambda names: names["result"]["summary"]["kept"] > 0,
    "IndexSwitcher": lambda names: names["result"]["pointer"] == "current.json",
    "KaleAligner": lambda names: names["result"]["metrics"]["share_of_teacher"] > 0,
    "KaleQueryEncoder": lambda names: len(names["embedding"]) == 32,
    "ListwiseScorer": lambda names: [document.score for document in names["ranked"]] == [0.75, 0.75],
    "ReaderFineTuner": lambda _: Path("models/reader-1/fine_tuning.json").is_file(),
    "ReplySelector": lambda names: names["result"]["source"] == "index",
    "ResponseDistiller": lambda _: Path("models/replies/metrics.json").is_file(),
    "ResponseSetBuilder": lambda _: TrainingSet.open("responses").manifest["teacher"]["signal"] == "mi",
    "RetrievalEvaluator": lambda names: set(names["result"]["metrics"]) >= {"two layers", "table"},
    "RetrieverDistiller": lambda names: names["result"]["metrics"]["recommended"] in {"student", "untouched"},
    "TeacherAttentionScorer": lambda names: len(names["ranked"]) == 2,
    "TeacherLabeller": lambda names: 0 <= names["result"]["summary"]["first_agrees"] <= 1,
    "TeacherLikelihoodScorer": lambda names: len(names["ranked"]) == 2,
    "TeacherSimilarityScorer": lambda names: len(names["result"]["documents"]) == 2,
    "TrainingSetBuilder": lambda names: len(TrainingSet.open(names["folder"])) == 48,
}
