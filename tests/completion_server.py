"""A small OpenAI-compatible completions server over a real model, in both dialects of prompt log-probabilities."""

import json
from contextlib import contextmanager

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from tests.json_server import JSONHandler, running


class Completions(JSONHandler):
    def post(self, content):
        body = json.loads(content)
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


@contextmanager
def serving(folder):
    """Serve a model on loopback."""
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    tokenizer = AutoTokenizer.from_pretrained(folder)
    with running(Completions, model=model, tokenizer=tokenizer, requests=[], failures=[]) as server:
        yield server, f"{server.address}/v1"
