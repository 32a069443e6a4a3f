"""An OpenAI-compatible chat server on loopback that misbehaves when it is told to."""

import json
import threading
import time
from contextlib import contextmanager

from tests.json_server import JSONHandler, running


class Chat(JSONHandler):
    protocol_version = "HTTP/1.1"

    def post(self, content):
        body = json.loads(content)
        with self.server.lock:
            self.server.requests.append((time.monotonic(), body))
            trouble = self.server.troubles.pop(0) if self.server.troubles else None
        trouble = self.server.trouble_for(body) if trouble is None else trouble
        if trouble == "stall":
            self.server.released.wait(30)
            return None
        if isinstance(trouble, dict):
            return self.answer(trouble["status"], {"error": {"message": "no"}}, trouble.get("headers", {}))
        text = self.server.reply(body) if trouble is None else trouble
        choice = {"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": text}}
        usage = {"prompt_tokens": 10, "completion_tokens": 5, "total_tokens": 15}
        head = {"id": "x", "object": "chat.completion", "created": 0, "model": "served-model"}
        return self.answer(200, {**head, "choices": [choice], "usage": usage})


def question_about(body) -> str:
    """What a sensible model says: another question for each seed, about words of the passage."""
    words = body["messages"][-1]["content"].removeprefix("Text: ").split()
    seed = body.get("seed", 0)
    chosen = [words[(seed >> shift) % min(20, len(words))].strip(".,").lower() for shift in (0, 5, 10)]
    return f"Question: Which {chosen[0]} goes with {chosen[1]} and {chosen[2]} number {seed % 1000}?\nIt is clear."


@contextmanager
def chatting(reply=question_about, trouble_for=lambda _: None):
    """
    Serve.

    `server.troubles` are popped one a request before all else: `"stall"`, a dictionary with `status` and `headers`, any
    other text as the reply, or None. `trouble_for` sees the request.
    """
    state = {"reply": reply, "trouble_for": trouble_for, "requests": [], "troubles": []}
    with running(Chat, **state, lock=threading.Lock(), released=threading.Event()) as server:
        try:
            yield server, f"{server.address}/v1"
        finally:
            server.released.set()
