"""The tables of components and pipelines are whole, and every page can be found."""

import inspect
import re
from pathlib import Path

import pytest
import yaml

import haystack_distill
from haystack_integrations.components import distill

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
COMPONENTS = (DOCS / "components.md").read_text(encoding="utf-8")
ROWS = re.findall(r"^\| \[`(\w+)`\]\(api/(\w+)\.md\) \| `(\w+)` \| (.+) \|$", COMPONENTS, re.MULTILINE)
PIPELINES = re.findall(r"^\| \[(\w+)\.yaml\]\(\S+\) \| (.+) \| (.+) \| (.+) \|$", COMPONENTS, re.MULTILINE)


def test_each_component_has_a_line_and_a_place_in_the_reference():
    assert sorted(name for name, *_ in ROWS) == sorted(name for name in distill.__all__ if name != "load_pipeline")
    directives = {
        name: file.stem
        for file in (DOCS / "api").glob("*.md")
        for name in re.findall(r"^::: haystack_integrations\S+\.(\w+)$", file.read_text(encoding="utf-8"), re.MULTILINE)
    }
    assert directives == {**{name: page for name, page, *_ in ROWS}, "load_pipeline": "serve"}


@pytest.mark.parametrize(("name", "_", "module", "line"), ROWS, ids=[row[0] for row in ROWS])
def test_the_line_of_a_component_is_that_of_its_docstring(name, _, module, line):
    component = getattr(haystack_distill, name)
    assert component.__module__ == f"haystack_integrations.components.distill.{module}"
    assert line == " ".join(inspect.getdoc(component).split("\n\n")[0].split())


def test_each_pipeline_has_a_line():
    assert sorted(name for name, *_ in PIPELINES) == sorted(file.stem for file in (ROOT / "pipelines").glob("*.yaml"))


@pytest.mark.parametrize(("name", "line", "takes", "gives"), PIPELINES, ids=[row[0] for row in PIPELINES])
def test_the_line_of_a_pipeline_is_that_of_its_file(name, line, takes, gives):
    text = (ROOT / "pipelines" / f"{name}.yaml").read_text(encoding="utf-8")
    comment = " ".join(part.removeprefix("# ") for part in re.match(r"(# .+\n)+", text)[0].splitlines())
    assert comment.startswith(line)
    content = yaml.safe_load(text)
    assert takes == ", ".join(f"`{socket}`" for socket in content["inputs"])
    assert gives == ", ".join(f"`{socket}`" for socket in content["outputs"])


def test_the_first_page_names_every_page():
    first = (DOCS / "README.md").read_text(encoding="utf-8")
    assert [
        file.name for file in DOCS.glob("*.md") if file.name != "README.md" and f"]({file.name})" not in first
    ] == []
