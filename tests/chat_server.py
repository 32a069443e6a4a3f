"""An OpenAI-compatible chat server on loopback that misbehaves when it is told to."""

import json
import threading
import time
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class Chat(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
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

    def answer(self, status, body, headers=()):
        content = json.dumps(body).encode()
        self.send_response(status)
        for name, value in dict(headers).items():
            self.send_header(name, value)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *_):
        pass


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
    server = ThreadingHTTPServer(("127.0.0.1", 0), Chat)
    server.daemon_threads = True
    server.reply, server.trouble_for = reply, trouble_for
    server.requests, server.troubles = [], []
    server.lock, server.released = threading.Lock(), threading.Event()
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield server, f"http://127.0.0.1:{server.server_port}/v1"
    finally:
        server.released.set()
        server.shutdown()
        server.server_close()
