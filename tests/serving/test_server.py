"""pipelines/query.yaml under Haystack's own server, asked over HTTP."""

import json
import os
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

import pytest

from haystack_distill.students.cutting import cut

HAYHOOKS = Path(sys.executable).with_name("hayhooks")
QUERY_YAML = Path(__file__).parents[2] / "pipelines" / "query.yaml"


def post(url: str, content: dict) -> dict:
    request = urllib.request.Request(
        url, data=json.dumps(content).encode(), headers={"Content-Type": "application/json"}
    )
    with urllib.request.urlopen(request, timeout=120) as answer:
        return json.load(answer)


def wait_for(url: str, server: subprocess.Popen) -> None:
    for _ in range(120):
        assert server.poll() is None, "the server ended"
        try:
            urllib.request.urlopen(url, timeout=2)
        except (urllib.error.URLError, ConnectionError, TimeoutError):
            time.sleep(0.5)
        else:
            return
    pytest.fail("The server did not answer within a minute.")


@pytest.mark.skipif(not HAYHOOKS.exists(), reason="hayhooks is not installed (the `server` extra)")
def test_the_query_pipeline_answers_over_http(teacher, passages, write_index, tmp_path):
    cut(teacher, (0, 1, 2, 3, 4, 5)).save(str(tmp_path / "model"), create_model_card=False)
    write_index(tmp_path / "index")
    yaml = QUERY_YAML.read_text().replace("models/minilm-2-layers", str(tmp_path / "model"))
    yaml = yaml.replace("path: index", f"path: {tmp_path / 'index'}").replace("384", "32")
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port = listener.getsockname()[1]
    environment = {**os.environ, "HAYHOOKS_PIPELINES_DIR": str(tmp_path / "served")}
    with subprocess.Popen([HAYHOOKS, "run", "--port", str(port)], env=environment, cwd=tmp_path) as server:
        try:
            wait_for(f"http://127.0.0.1:{port}/status", server)
            post(f"http://127.0.0.1:{port}/deploy-yaml", {"name": "ask", "source_code": yaml})
            found = post(f"http://127.0.0.1:{port}/ask/run", {"query": passages["d7"], "top_k": 3, "filters": None})
        finally:
            server.terminate()
    contents = [document["content"] for document in found["result"]["retriever"]["documents"]]
    assert contents[0] == passages["d7"]
    assert len(contents) == 3
