from pathlib import Path
from typing import Any

import yaml
from haystack import Pipeline, SuperComponent


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
    text = file.read_text(encoding="utf-8")
    try:
        content: Any = yaml.safe_load(text)
    except yaml.YAMLError as error:
        msg = f"{file} is not YAML: {' '.join(str(error).split())}"
        raise ValueError(msg) from error
    if not isinstance(content, dict) or "components" not in content:
        msg = f"{file} is not a pipeline: a YAML with `components:` and `connections:` is expected."
        raise ValueError(msg)
    inputs, outputs = content.get("inputs"), content.get("outputs")
    if not inputs or not outputs:
        msg = f"{file} needs `inputs:` and `outputs:`, for example `inputs: {{query: [retriever.query]}}`."
        raise ValueError(msg)
    return SuperComponent(
        pipeline=Pipeline.loads(text),
        input_mapping={name: [place] if isinstance(place, str) else place for name, place in inputs.items()},
        output_mapping={place: name for name, place in outputs.items()},
    )
