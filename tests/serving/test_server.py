"""pipelines/query.yaml under Haystack's own server, asked over HTTP."""

from pathlib import Path

from haystack_distill.students.cutting import cut
from tests.hayhooks_server import needs_hayhooks, post, serving_pipelines

QUERY_YAML = Path(__file__).parents[2] / "pipelines" / "query.yaml"


@needs_hayhooks
def test_the_query_pipeline_answers_over_http(teacher, passages, write_index, tmp_path):
    cut(teacher, (0, 1, 2, 3, 4, 5)).save(str(tmp_path / "model"), create_model_card=False)
    write_index(tmp_path / "index")
    yaml = QUERY_YAML.read_text().replace("models/minilm-2-layers", str(tmp_path / "model"))
    yaml = yaml.replace("path: index", f"path: {tmp_path / 'index'}").replace("384", "32")
    with serving_pipelines(tmp_path) as url:
        post(f"{url}/deploy-yaml", {"name": "ask", "source_code": yaml})
        found = post(f"{url}/ask/run", {"query": passages["d7"], "top_k": 3, "filters": None})
    contents = [document["content"] for document in found["result"]["retriever"]["documents"]]
    assert contents[0] == passages["d7"]
    assert len(contents) == 3
