"""What the tests of GenerativeAugmenter share."""

import json
from pathlib import Path

from haystack import Document
from haystack.components.generators.chat import OpenAIChatGenerator
from haystack.utils import Secret

from haystack_distill import GenerativeAugmenter
from tests.conftest import sentences

DOCUMENTS = [Document(id=f"d{number}", content=text) for number, text in enumerate(sentences(12, 4, 15))]
DIALOGUES = [{"_id": f"c{number}", "turns": sentences(4, 20 + number, 6)} for number in range(3)]


def generator(url: str, **settings) -> OpenAIChatGenerator:
    key = Secret.from_token("x") if "api_key" not in settings else settings.pop("api_key")
    return OpenAIChatGenerator(api_key=key, model="asked-model", api_base_url=url, max_retries=0, **settings)


def augmenter(url: str, folder: Path, **settings) -> GenerativeAugmenter:
    return GenerativeAugmenter(
        generator=generator(url), output=str(folder / "out"), **{"n": 1, "progress_bar": False, **settings}
    )


def lines(file: Path) -> list[dict]:
    return [json.loads(line) for line in file.read_text().splitlines()]


def dialogues(folder: Path) -> str:
    (folder / "dialogues.jsonl").write_text("".join(json.dumps(one) + "\n" for one in DIALOGUES))
    return str(folder / "dialogues.jsonl")


def asked_about(server) -> list[str]:
    return [body["messages"][-1]["content"] for _, body in server.requests]


def not_the_first_document(_: str, source: str) -> bool:
    return source != DOCUMENTS[0].content
