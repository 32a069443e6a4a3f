"""The YAML of docs/stores.md loads."""

import re
from pathlib import Path

import pytest
import yaml
from haystack import Pipeline

DOCS = Path(__file__).parents[2] / "docs" / "stores.md"
FRAME, *RETRIEVERS = re.findall(r"```yaml\n(.*?)```", DOCS.read_text(encoding="utf-8"), re.DOTALL)


@pytest.mark.parametrize("text", RETRIEVERS, ids=lambda text: yaml.safe_load(text)["type"].rsplit(".", 1)[1])
def test_a_pipeline_of_the_docs_loads(text, tmp_path, monkeypatch):
    retriever = yaml.safe_load(text)
    pytest.importorskip(retriever["type"].rsplit(".", 2)[0])
    monkeypatch.chdir(tmp_path)
    content = yaml.safe_load(FRAME)
    content["components"]["retriever"]["init_parameters"]["retriever"] = retriever
    loaded = Pipeline.loads(yaml.safe_dump(content), allowed_modules=["milvus_haystack"])
    assert type(loaded.get_component("retriever").retriever).__name__ == retriever["type"].rsplit(".", 1)[1]
