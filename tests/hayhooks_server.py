"""Haystack's own server, in a process of its own."""

import json
import os
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

HAYHOOKS = Path(sys.executable).with_name("hayhooks")
needs_hayhooks = pytest.mark.skipif(not HAYHOOKS.exists(), reason="hayhooks is not installed (the `server` extra)")


@contextmanager
def serving_pipelines(folder: Path, **environment: str) -> Iterator[str]:
    """Run it in a folder, and give its address."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port = listener.getsockname()[1]
    environment = {**os.environ, "HAYHOOKS_PIPELINES_DIR": str(folder / "served"), **environment}
    with subprocess.Popen([HAYHOOKS, "run", "--port", str(port)], env=environment, cwd=folder) as server:
        try:
            _wait_for(f"http://127.0.0.1:{port}/status", server)
            yield f"http://127.0.0.1:{port}"
        finally:
            server.terminate()


def post(url: str, content: dict[str, Any]) -> dict[str, Any]:
    """Send JSON, and return the JSON of the answer."""
    request = urllib.request.Request(
        url, data=json.dumps(content).encode(), headers={"Content-Type": "application/json"}
    )
    with urllib.request.urlopen(request, timeout=120) as answer:
        return json.load(answer)


def _wait_for(url: str, server: subprocess.Popen) -> None:
    for _ in range(120):
        assert server.poll() is None, "the server ended"
        try:
            urllib.request.urlopen(url, timeout=2)
        except (urllib.error.URLError, ConnectionError, TimeoutError):
            time.sleep(0.5)
        else:
            return
    pytest.fail("The server did not answer within a minute.")
