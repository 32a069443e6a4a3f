from pathlib import Path
from typing import Any, NotRequired

from haystack import Pipeline, SuperComponent
from typing_extensions import TypedDict

from haystack_distill.files.shapes import read_yaml, shaped


class _Component(TypedDict):
    type: str
    init_parameters: NotRequired[dict[str, Any]]


class _Connection(TypedDict):
    sender: str
    receiver: str


class _Content(TypedDict):
    """A pipeline with what `run` takes and returns; it may hold more."""

    components: dict[str, _Component]
    connections: NotRequired[list[_Connection]]
    inputs: dict[str, str | list[str]]
    outputs: dict[str, str]


def load_pipeline(path: str | Path) -> SuperComponent:
    """
    Load a pipeline from YAML so that it runs with keywords: `load_pipeline("query.yaml").run(query="...")`.

    The keywords and results are those that the YAML's `inputs:` and `outputs:` name, as hayhooks reads them:

    ```yaml
    inputs: {query: [retriever.query]}
    outputs: {documents: retriever.documents}
    ```

    :param path: The YAML file.
    :returns: The pipeline as one component, with `run` and `run_async`.
    :raises FileNotFoundError: If there is no such file.
    :raises ValueError: If the YAML is not a pipeline, or lacks inputs or outputs.
    """
    file = Path(path)
    if not file.is_file():
        msg = f"The pipeline {file} is missing."
        raise FileNotFoundError(msg)
    content = read_yaml(file)
    if not isinstance(content, dict) or "components" not in content:
        msg = f"{file} is not a pipeline: a YAML with `components:` and `connections:` is expected."
        raise ValueError(msg)
    inputs, outputs = content.get("inputs"), content.get("outputs")
    if not inputs or not outputs:
        msg = f"{file} needs `inputs:` and `outputs:`, for example `inputs: {{query: [retriever.query]}}`."
        raise ValueError(msg)
    shaped(content, _Content, f"{file} is not a pipeline")
    return SuperComponent(
        pipeline=Pipeline.loads(file.read_text(encoding="utf-8")),
        input_mapping={name: [place] if isinstance(place, str) else place for name, place in inputs.items()},
        output_mapping={place: name for name, place in outputs.items()},
    )
