"""`haystack-distill compare`: two query pipelines over one index, side by side, with answers and without."""

import html
import re
import shutil
from pathlib import Path

import pytest
import yaml
from haystack.components.retrievers.in_memory import InMemoryEmbeddingRetriever

from haystack_distill import KaleQueryEncoder
from haystack_distill.students.token_table import make_token_table
from tests.chat_server import chatting
from tests.conftest import sentences

QUERY = Path(__file__).parents[2] / "pipelines" / "query.yaml"
QUESTIONS = sentences(4, seed=31, length=5)


@pytest.fixture
def folder(bert, teacher, write_index, place) -> Path:
    """pipelines/query.yaml twice, before one local index: with its encoder and with a table."""
    make_token_table(teacher).save("models/table", create_model_card=False)
    shutil.copytree(bert, place / "models" / "bert")
    settings = write_index()
    for name, model in (("old", "models/bert"), ("new", "models/table")):
        content = yaml.safe_load(QUERY.read_text())
        parameters = content["components"]["retriever"]["init_parameters"]
        parameters["retriever"]["init_parameters"]["document_store"]["init_parameters"] = settings
        parameters["query_encoder"]["init_parameters"]["model"] = model
        (place / f"{name}.yaml").write_text(yaml.safe_dump(content))
    (place / "questions.txt").write_text("\n".join([*QUESTIONS[:2], "", *QUESTIONS[2:]]) + "\n")
    return place


def items(page: str) -> list[list[str]]:
    """The passages of each list of a page, old and new in turn."""
    lists = re.findall(r"<ol>(.*?)</ol>", page, re.DOTALL)
    return [[html.unescape(one) for one in re.findall(r"<li[^>]*>(.*?)</li>", part, re.DOTALL)] for part in lists]


def found(model: str, store, question: str, top_k: int) -> list[str]:
    embedding = KaleQueryEncoder(model).run(text=question)["embedding"]
    documents = InMemoryEmbeddingRetriever(store).run(query_embedding=embedding, top_k=top_k)["documents"]
    return [document.content for document in documents]


def test_the_page_shows_what_each_finds(folder, store, command):
    code, said = command("compare", "old.yaml", "new.yaml", "questions.txt", "--top-k", "2", "--no-progress")
    assert code == 0, said
    page = (folder / "before-after.html").read_text()
    expected = [[found(f"models/{name}", store, one, 2) for name in ("bert", "table")] for one in QUESTIONS]
    assert items(page) == [side for pair in expected for side in pair]
    assert [page.count(f"<h2>{one}</h2>") for one in QUESTIONS] == [1] * 4
    first = sum(old[0] == new[0] for old, new in expected)
    assert f"with the same passage first {first}" in said
    assert f"<b>{first} of 4</b>" in page
    own = sum(text not in new for old, new in expected for text in old)
    assert page.count('<li class="own">') == 2 * own, "of equally long lists each has as many of its own"
    assert len(re.findall(r">\d+\.\d ms</span>", page)) == 8
    assert 'class="answer"' not in page


def test_answers_are_made_of_what_was_shown_and_the_same_passages_are_read_once(folder, command):
    """The new pipeline is the old one: each answer stands on both sides, and each question is asked once."""
    reply = lambda body: f"<think>so</think>It says {len(body['messages'][-1]['content'])} <b>letters</b>."  # noqa: E731
    with chatting(reply) as (server, url):
        arguments = ["old.yaml", "old.yaml", "questions.txt", "--model", "m", "--api-base-url", url, "--no-progress"]
        code, said = command("compare", *arguments, "--count", "3")
    assert code == 0, said
    page = (folder / "before-after.html").read_text()
    asked = [body["messages"][-1]["content"] for _, body in server.requests]
    assert len(asked) == 3
    shown = items(page)[0::2]
    for passages, question in zip(shown, QUESTIONS, strict=False):
        (request,) = [one for one in asked if f"Question: {question}" in one]
        assert all(passage in request for passage in passages)
        answer = f'<div class="answer">It says {len(request)} &lt;b&gt;letters&lt;/b&gt;.</div>'
        assert page.count(answer) >= 2


def test_a_local_model_answers(folder, reader_folder, command):
    arguments = ["old.yaml", "new.yaml", "questions.txt", "--count", "1", "--no-progress", "--output", "page.html"]
    code, said = command("compare", *arguments, "--model", reader_folder("llama"))
    assert code == 0, said
    assert (folder / "page.html").read_text().count('<div class="answer">') == 2


@pytest.mark.usefixtures("folder")
def test_the_queries_of_a_folder_are_asked(beir, command):
    code, said = command("compare", "old.yaml", "new.yaml", beir, "--count", "5", "--no-progress")
    assert (code, "questions 5" in said) == (0, True)


BROKEN = {"components": {}, "connections": []}


@pytest.mark.parametrize(
    ("typed", "said"),
    [
        (["none.yaml", "new.yaml", "questions.txt"], "The pipeline none.yaml is missing."),
        (
            ["old.yaml", "new.yaml", "none.txt"],
            "The questions none.txt are missing: name a text file with a question a",
        ),
        (["old.yaml", "new.yaml", "empty.txt"], "empty.txt holds no question: write one on each line."),
        (["old.yaml", "new.yaml", "image.txt"], "image.txt is not UTF-8 text"),
        (["old.yaml", "renamed.yaml", "questions.txt"], "renamed.yaml has no `query` among its inputs (question"),
        (["old.yaml", "blind.yaml", "questions.txt"], "blind.yaml has no `documents` among its outputs (found)"),
        (
            ["old.yaml", "wanting.yaml", "questions.txt"],
            "wanting.yaml wants task besides a query, and nothing is given",
        ),
        (["old.yaml", "new.yaml", "questions.txt", "--api-base-url", "http://localhost:1"], "name it with --model."),
        (["old.yaml", "new.yaml", "questions.txt", "--model", "nowhere/m"], "nowhere/m"),
        (["old.yaml", "moved.yaml", "questions.txt"], "The encoder models/gone is missing"),
    ],
)
def test_a_mistake_is_one_sentence_and_writes_nothing(folder, command, typed, said):
    (folder / "empty.txt").write_text("\n \n")
    (folder / "image.txt").write_bytes(b"\xff\xd8\xff")
    text = (folder / "new.yaml").read_text()
    content = yaml.safe_load(text)
    (folder / "renamed.yaml").write_text(yaml.safe_dump({**content, "inputs": {"question": ["retriever.query"]}}))
    (folder / "blind.yaml").write_text(yaml.safe_dump({**content, "outputs": {"found": "retriever.documents"}}))
    (folder / "moved.yaml").write_text(text.replace("models/table", "models/gone"))
    builder = {"type": "haystack.components.builders.prompt_builder.PromptBuilder"}
    builder["init_parameters"] = {"template": "{{ task }}", "required_variables": ["task"]}
    inputs = {**content["inputs"], "task": ["builder.task"]}
    wanting = {**content, "components": {**content["components"], "builder": builder}, "inputs": inputs}
    (folder / "wanting.yaml").write_text(yaml.safe_dump(wanting))
    code, answer = command("compare", *typed, "--no-progress")
    assert code == 1
    assert said in answer
    assert not (folder / "before-after.html").exists()
