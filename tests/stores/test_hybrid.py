"""pipelines/hybrid_fusion.yaml and hybrid.yaml over the store that they name; judgments are the teacher."""

from pathlib import Path

import pytest
import yaml

from haystack_distill import load_pipeline
from tests.conftest import write_beir

PIPELINES = Path(__file__).parents[2] / "pipelines"


def test_the_pipelines_of_a_hybrid_run_over_the_store_that_they_name(
    backend, opener, documents, passages, bert, tmp_path, monkeypatch
):
    if backend.name != "pgvector":
        pytest.skip(f"{backend.name} is not the store of these pipelines")
    store = opener(documents)
    monkeypatch.chdir(tmp_path)
    queries = {f"q{n}": " ".join(passages[f"d{n}"].split()[:3]) for n in range(40)}
    splits = {"train": range(30), "test": range(30, 40)}
    asked = write_beir(
        tmp_path / "asked", passages, queries, {s: {f"q{n}": f"d{n}" for n in of} for s, of in splits.items()}
    )
    fusing = _loaded("hybrid_fusion.yaml", store.table_name, bert, tmp_path)
    metrics = fusing.run(queries=str(asked), judged=str(asked))["metrics"]
    assert metrics["queries"] == 10
    assert sum(metrics["weights"].values()) == pytest.approx(1)
    asking = _loaded("hybrid.yaml", store.table_name, bert, tmp_path)
    found = asking.run(query=queries["q3"], top_k=4)["documents"]
    assert len(found) == 4
    scores = [document.score for document in found]
    assert scores == sorted(scores, reverse=True)
    assert all(document.meta["retriever_scores"].keys() <= {"keyword", "dense"} for document in found)


def _loaded(name: str, table_name: str, model: str, place: Path):
    """The YAML with a small model, and the test's own table in the place of the default one."""
    content = yaml.safe_load((PIPELINES / name).read_text())
    for component in content["components"].values():
        component["init_parameters"].pop("scorer", None)  # which lets judgments teach, as the YAML says

    def changed(value):
        if not isinstance(value, dict):
            return model if value == "models/minilm-2-layers" else value
        small = {"embedding_dimension": 32, "table_name": table_name} if "embedding_dimension" in value else {}
        return {key: changed(item) for key, item in value.items()} | small

    (place / name).write_text(yaml.safe_dump(changed(content)))
    return load_pipeline(place / name)
