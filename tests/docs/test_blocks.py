"""What the pages show runs: Python blocks, pipelines in YAML, and commands with their options."""

import re
import shlex
import shutil
from pathlib import Path
from typing import Any

import pytest
import typer
import yaml
from haystack import Pipeline
from haystack.components.retrievers.in_memory import InMemoryBM25Retriever, InMemoryEmbeddingRetriever

from haystack_distill import ResponseSetBuilder
from haystack_distill.cli import app
from haystack_distill.data.training_set import Row, write_training_set

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
COMMANDS = typer.main.get_command(app).commands
FENCE = re.compile(r"^( *)```(\w*)\n(.*?)^\1```$", re.MULTILINE | re.DOTALL)
COMPILED = {"docs/g2r.md-2"}
"""Blocks that leave something for the reader to fill in."""


def blocks(language: str) -> list[Any]:
    """All blocks of a language: page and number, and the text."""
    found = []
    for page in PAGES:
        texts = [text for _, name, text in FENCE.findall(page.read_text(encoding="utf-8")) if name == language]
        place = page.relative_to(ROOT).as_posix()
        found += [pytest.param(text, id=f"{place}-{number}") for number, text in enumerate(texts)]
    return found


@pytest.fixture
def named(places, place, write_index, teacher, index, passages) -> dict[str, Any]:
    """What blocks take for granted: the pipelines of the repository, an index that they name, and some objects."""
    shutil.copytree(ROOT / "pipelines", place / "pipelines")
    for file in (place / "pipelines").glob("*.yaml"):
        file.write_text(file.read_text(encoding="utf-8").replace("_dim: 384", "_dim: 32"), encoding="utf-8")
    shutil.copyfile(place / "pipelines" / "query.yaml", place / "query.yaml")  # as `haystack-distill init` writes it
    for path in ("index", "response_index"):
        write_index(path)
    questions = {f"q{n}": " ".join(reversed(text.split()[:8])) for n, text in enumerate(passages.values())}
    pairs = [
        Row(f"q{n}", questions[f"q{n}"], [], [key, "else"], [text, f"Else {n}. {text}"], [1.0, 0.5], [1.0, 0.0])
        for n, (key, text) in enumerate(passages.items())
    ]
    return {
        **places,
        "store": places["document_store"],
        "InMemoryBM25Retriever": InMemoryBM25Retriever,
        "InMemoryEmbeddingRetriever": InMemoryEmbeddingRetriever,
        "queries": questions,
        "teacher": teacher,
        "index": index,
        "training_set": write_training_set("for_pairs", pairs, source="", similarity="cosine", teacher={"model": "b"}),
        "dev_queries": questions,
        "dev_qrels": {key: {f"d{key[1:]}": 1} for key in questions},
    }


@pytest.mark.usefixtures("tiny_on_the_hub")
@pytest.mark.parametrize("code", [block for block in blocks("python") if block.id != "docs/quickstart.md-0"])
def test_python_runs(code, named, request):
    compiled = compile(code, "block", "exec")
    where = request.node.callspec.id
    if where == "docs/g2r.md-0":
        ResponseSetBuilder(output="training_set").run(responses="responses.jsonl")
    for output in re.findall(r'output="(.+?)"', code):
        shutil.rmtree(output, ignore_errors=True)
    if where not in COMPILED:
        exec(compiled, named)  # noqa: S102


@pytest.mark.usefixtures("named_on_the_hub")
def test_the_quickstart_finds_how_white_space_is_cut_off(capsys, place):
    (code,) = (block.values[0] for block in blocks("python") if block.id == "docs/quickstart.md-0")
    assert sum(not line.startswith((" ", "from")) and bool(line) for line in code.splitlines()) <= 10
    exec(compile(code, "quickstart", "exec"), {})  # noqa: S102
    assert "whitespace removed" in capsys.readouterr().out
    assert (place / "models" / "table" / "report.html").is_file()


@pytest.mark.parametrize("text", blocks("yaml"))
def test_a_pipeline_loads(text):
    content = yaml.safe_load(text)
    if "components" in content and "..." not in text:
        Pipeline.loads(text)


def commands() -> list[Any]:
    """All commands of this package in blocks, each on one line."""
    found = []
    for block in [*blocks(""), *blocks("bash")]:
        lines = block.values[0].replace("\\\n", " ").splitlines()
        found += [pytest.param(line, id=f"{block.id}-{line[:60]}") for line in lines if "haystack-distill " in line]
    return [one for one in found if re.match(r"(torchrun .*)?haystack-distill [a-z-]+ ", one.values[0])]


@pytest.mark.parametrize("line", commands())
def test_a_command_and_its_options_exist(line):
    name, *typed = shlex.split(line[line.index("haystack-distill ") :], comments=True)[1:]
    known = {option for parameter in COMMANDS[name].params for option in [*parameter.opts, *parameter.secondary_opts]}
    assert {one for one in typed if one.startswith("--")} <= known
