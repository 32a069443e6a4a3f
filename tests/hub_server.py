"""A small model hub on loopback: repositories are made, and commits put files into them."""

import base64
import json
from contextlib import contextmanager

from huggingface_hub import constants

from tests.json_server import JSONHandler, running

TOKEN = "hf_of-the-test"  # noqa: S105


class Hub(JSONHandler):
    def post(self, body):
        if self.headers.get("Authorization") != f"Bearer {TOKEN}":
            return self.answer(401, {"error": "Invalid username or password."})
        if self.path == "/api/repos/create":
            asked = json.loads(body)
            name = f"{asked.get('organization') or 'me'}/{asked['name']}"
            self.server.repositories.setdefault(name, {})
            self.server.private[name] = asked.get("private") or asked.get("visibility") == "private"
            return self.answer(200, {"url": f"{self.server.address}/{name}"})
        if self.path == "/api/validate-yaml":
            self.server.validated.append(json.loads(body)["content"])
            return self.answer(200, {"warnings": [], "errors": []})
        _, _, _, owner, name, what, _ = self.path.split("/")
        if what == "preupload":
            files = [
                {"path": file["path"], "uploadMode": "regular", "shouldIgnore": False}
                for file in json.loads(body)["files"]
            ]
            return self.answer(200, {"files": files})
        for line in map(json.loads, body.splitlines()):
            if line["key"] == "file":
                content = base64.b64decode(line["value"]["content"])
                self.server.repositories[f"{owner}/{name}"][line["value"]["path"]] = content
        return self.answer(200, {"commitUrl": f"{self.server.address}/{owner}/{name}/commit/0a1b", "commitOid": "0a1b"})


@contextmanager
def hub(monkeypatch):
    """Let huggingface_hub ask a hub on loopback, which has `repositories`: name -> path -> content."""
    with running(Hub, repositories={}, private={}, validated=[]) as server:
        monkeypatch.setattr(constants, "ENDPOINT", server.address)
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
        monkeypatch.setenv("HF_TOKEN", TOKEN)
        yield server
