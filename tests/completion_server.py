"""A small OpenAI-compatible completions server over a real model, in both dialects of prompt log-probabilities."""

import json
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer


class Completions(BaseHTTPRequestHandler):
    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.server.requests.append((self.path, body, self.headers.get("Authorization")))
        if self.server.failures:
            return self.answer(self.server.failures.pop(0), {"error": "busy"})
        choices = [{"index": n, "text": "", **self.scored(text, body)} for n, text in enumerate(body["prompt"])]
        return self.answer(200, {"choices": choices[::-1]})

    def scored(self, text, body):
        model, tokenizer = self.server.model, self.server.tokenizer
        encoded = tokenizer(text, return_offsets_mapping=True)
        ids = encoded["input_ids"]
        with torch.no_grad():
            logits = model(torch.tensor([ids])).logits[0].log_softmax(-1)
        values = [None, *(float(logits[place - 1, ids[place]]) for place in range(1, len(ids)))]
        words = [text[start:end] for start, end in encoded["offset_mapping"]]
        if body.get("echo"):
            starts = [start for start, _ in encoded["offset_mapping"]]
            # One token is generated, as servers do that can't answer with none.
            return {
                "logprobs": {
                    "tokens": [*words, "x"],
                    "token_logprobs": [*values, -1.0],
                    "text_offset": [*starts, len(text)],
                }
            }
        if "prompt_logprobs" in body:
            entries = zip(ids[1:], values[1:], words[1:], strict=True)
            return {"prompt_logprobs": [None, *({str(i): {"logprob": v, "decoded_token": w}} for i, v, w in entries)]}
        return {"logprobs": None}

    def answer(self, status, body):
        content = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *_):
        pass


@contextmanager
def serving(folder):
    """Serve a model on loopback."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), Completions)
    server.model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    server.tokenizer = AutoTokenizer.from_pretrained(folder)
    server.requests, server.failures = [], []
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield server, f"http://127.0.0.1:{server.server_port}/v1"
    finally:
        server.shutdown()
        server.server_close()
