"""
G2R: replies out of a response set, from an encoder that was or was not taught by dialogues and by a generator.

    python -m benchmarks.g2r [--data FOLDER] [--generator MODEL] [--json FILE] [--quick]

FOLDER holds `train.jsonl`, `test.jsonl` and perhaps `dev.jsonl`, lines with `turns`; without it the conversations of
the package chitchat-dataset are split by conversation. Systems, all from one encoder and in as many epochs: untouched;
trained on the human replies; on generated ones too (G2R, data level); with the generator's scores (`data+ll`,
`data+mi`: model level, as published, and `ll` with more weight); `strong` (human replies, and the likelihoods of what
the `data` model mines).

hits@k: the human reply among the first k of 100 candidates. recall@k: the same in the whole response set, to which the
test replies are added. The reply that is chosen comes from the response set without them; `generator_loglik` is what
the generator thinks of it, dist-n the share of its n-grams that are distinct over all replies. Gains are over the step
before (`BEFORE`), with 95 % bootstrap intervals over the contexts. Latency: one context at a time, in one process:
encoding and HNSW search (the authors' HNSW32, efSearch 256) beside the generator writing one reply; the encoder as
`KaleQueryEncoder` serves it, exported to ONNX at full precision (`ms`), and through sentence-transformers (`torch_ms`).

Everything is kept under `benchmark_output`, by content; a table that was stopped goes on with the same `--json`.
"""

import hashlib
import json as json_lines
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Annotated, Any

import faiss
import numpy as np
import torch
import typer
from sentence_transformers import SentenceTransformer

from benchmarks.common import minilm, print_rows, read_rows, write_rows
from benchmarks.dialogues import chitchat, contexts_in, some_dialogues, spread
from benchmarks.labels import smollm2
from benchmarks.replies import CHOSEN, HITS, add_gains, diversity, in_whole_set, quality_of
from haystack_distill.data.dialogues import Context, format_context
from haystack_distill.data.training_set import TrainingSet
from haystack_distill.evaluation.dev_set import dev_set_of_texts
from haystack_distill.evaluation.quality import latencies
from haystack_distill.responses.building import write_responses
from haystack_distill.responses.evaluator import ranks_among
from haystack_distill.responses.job import distill_responses
from haystack_distill.responses.rows import response_set
from haystack_distill.responses.training import NEED_SCORES, G2RSettings
from haystack_distill.serving.export import export
from haystack_distill.serving.opening import open_encoder
from haystack_distill.students.bi_encoder import BiEncoder
from haystack_distill.teachers.labelling import label, one_after_the_other
from haystack_distill.teachers.likelihood import LikelihoodTeacher
from haystack_distill.teachers.readers import load_reader
from haystack_distill.teachers.scores import Candidates

WORK = Path("benchmark_output/g2r")
SAMPLING = {"temperature": 0.7, "top_k": 20}
"""Of replies: small generators wander off at a temperature of 1."""

RECIPES = {
    "untouched": None,
    "dialogues": ("dialogues", "response", 0.0),
    "data": ("data", "response", 0.0),
    "data+ll": ("model", "response", 0.1),
    "data+ll-alpha-0.25": ("model", "response", 0.25),
    "data+mi": ("model", "mi", 0.1),
    "strong": ("strong", "response", 0.0),
}
"""System -> recipe, the signal that labels its training set, and alpha of the recipe `model`; published: 0.1."""

BEFORE = {
    "dialogues": "untouched",
    "data": "dialogues",
    "data+ll": "data",
    "data+ll-alpha-0.25": "data",
    "data+mi": "data",
    "strong": "data+mi",
}
"""System -> the one that it should beat."""


@dataclass(frozen=True)
class Sizes:
    """How much of everything: CPUs are slow."""

    contexts: int = 4000
    replies: int = 5
    new_tokens: int = 32
    dev: int = 500
    test: int = 1000
    judged: int = 500
    responses: int = 100_000
    timed: int = 20
    negatives: int = 64
    epochs: int = 3
    batch_size: int = 32
    history: int = 4


MEASURED_WITH = {"test", "judged", "responses", "timed"}
"""Sizes that no model depends on: with others the same models are measured again."""

QUICK = Sizes(12, 1, 8, 12, 30, 5, 200, 3, 8, 1, 8, 3)


def main(
    data: Annotated[Path | None, typer.Option(help="train.jsonl and test.jsonl; default: chitchat-dataset.")] = None,
    json: Annotated[Path | None, typer.Option(help="Write the rows to this file.")] = None,
    quick: Annotated[bool, typer.Option(help="Very little of everything: shows that it runs.")] = False,
    generator: Annotated[str | None, typer.Option(help="Folder, hub name or GGUF file; default: SmolLM2.")] = None,
    encoder: Annotated[str | None, typer.Option(help="A sentence-transformers folder; default: MiniLM.")] = None,
    dtype: Annotated[str | None, typer.Option(help="Of the generator: float32 or bfloat16.")] = None,
    system: Annotated[list[str] | None, typer.Option(help="Only these systems.")] = None,
    contexts: Annotated[int | None, typer.Option(help="Contexts to train on, about.")] = None,
    replies: Annotated[int | None, typer.Option(help="Generated replies for each.")] = None,
    negatives: Annotated[int | None, typer.Option(help="Random negatives a step; published: 512.")] = None,
    test: Annotated[int | None, typer.Option(help="Contexts to test on.")] = None,
    judged: Annotated[int | None, typer.Option(help="Of how many the generator says how likely the reply is.")] = None,
    responses: Annotated[int | None, typer.Option(help="Size of the response set.")] = None,
    epochs: Annotated[int | None, typer.Option(help="Of every recipe.")] = None,
    history: Annotated[int | None, typer.Option(help="Turns of a context.")] = None,
) -> None:
    """Print the table."""
    named = {"contexts": contexts, "replies": replies, "negatives": negatives, "test": test, "judged": judged}
    named |= {"responses": responses, "epochs": epochs, "history": history}
    sizes = replace(QUICK if quick else Sizes(), **{key: value for key, value in named.items() if value is not None})
    bench = Bench(data or chitchat(WORK), generator or smollm2(), dtype, encoder or minilm(), sizes)
    rows = read_rows(json)
    for name in system or RECIPES:
        if not any(row["data"] == bench.name and row["system"] == name for row in rows):
            rows.append({"data": bench.name, "system": name, **bench.measured(name)})
            write_rows(json, rows)
            print_rows(rows[-1:], HITS, "")
    own = [row for row in rows if row["data"] == bench.name]
    add_gains(own, BEFORE)
    if any("ms" not in row for row in own):
        timed = bench.latency()
        for row in own:
            row.update(timed)
    write_rows(json, rows)
    print_rows(rows, HITS, f"The human reply among 100 candidates (hits) and {own[0]['responses']} responses (recall)")
    print_rows(rows, CHOSEN, f"The replies that are chosen; generator {Path(bench.generator).name}")


class Bench:
    """
    Everything that the rows of a data set share.

    :param data: The folder with the dialogues.
    :param generator: The generator's name.
    :param dtype: Its precision; None for its own.
    :param encoder: The encoder that all systems start from.
    :param sizes: How much of everything.
    """

    def __init__(self, data: Path, generator: str, dtype: str | None, encoder: str, sizes: Sizes) -> None:
        self.name, self.data, self.encoder, self.sizes = data.name, data, encoder, sizes
        self.generator, self.dtype = generator, dtype
        content = "".join(hashlib.sha256(file.read_bytes()).hexdigest() for file in sorted(data.glob("*.jsonl")))
        trained_on = {name: value for name, value in asdict(sizes).items() if name not in MEASURED_WITH}
        key = repr((content, Path(generator).name, dtype, SAMPLING, encoder, trained_on))
        self.work = WORK / f"{data.name}-{hashlib.sha256(key.encode()).hexdigest()[:12]}"
        self.work.mkdir(parents=True, exist_ok=True)
        self.test = spread(contexts_in(data / "test.jsonl", sizes.history), sizes.test)
        self._reader: Any = None
        self._pool: list[str] = []
        self._vectors: np.ndarray | None = None

    @property
    def reader(self) -> Any:
        """The generator, loaded when it is needed."""
        if self._reader is None:
            self._reader = load_reader(self.generator, dtype=self.dtype)
        return self._reader

    def training_set(self, signal: str | None, miner: str | None = None) -> Path:
        """Contexts with human, generated and perhaps mined responses; labelled by a signal, or not."""
        folder = self.work / (signal or "responses") if miner is None else self.work / f"mined-{signal}"
        write_responses(self._generated(), folder, self.sizes.history, miner=miner, device="cpu")
        if signal is not None and any(
            "labelled" not in one for one in TrainingSet.open(folder).manifest["shards"].values()
        ):
            teacher = LikelihoodTeacher(self.reader, signal, name=Path(self.generator).name)
            label(folder, teacher.identity, one_after_the_other(teacher))
        return folder

    def _generated(self) -> str:
        """The training dialogues with generated replies; kept by the augmenter, which knows what it made them of."""
        from haystack_distill import GenerativeAugmenter

        some = some_dialogues(self.data / "train.jsonl", self.sizes.contexts, self.work / "train.jsonl")
        augmenter = GenerativeAugmenter(
            output=str(self.work / "generated"),
            mode="responses",
            model=self.generator,
            n=self.sizes.replies,
            history=self.sizes.history,
            sampling={"max_new_tokens": self.sizes.new_tokens, **SAMPLING},
            dtype=self.dtype,
        )
        return str(augmenter.run(source=str(some))["output"])

    def model(self, system: str) -> Path:
        """Train a system, or find it trained."""
        if RECIPES[system] is None:
            return Path(self.encoder)
        recipe, signal, alpha = RECIPES[system]
        folder = self.work / system.replace("+", "-")
        if folder.exists():
            return folder
        sizes = self.sizes
        settings = G2RSettings(
            recipe=recipe,
            alpha=alpha,
            negatives=sizes.negatives,
            history=sizes.history,
            max_dev=sizes.dev,
            epochs=sizes.epochs,
            batch_size=sizes.batch_size,
        )
        dev = self.data / "dev.jsonl"
        distill_responses(
            self.training_set(
                signal if recipe in NEED_SCORES else None, str(self.model("data")) if recipe == "strong" else None
            ),
            self.encoder,
            folder,
            settings,
            dev=dev if dev.is_file() else None,
            device="cpu",
        )
        return folder

    def pool(self) -> list[str]:
        """The response set: what people said in the training dialogues, and what was generated for some of them."""
        if not self._pool:
            generated = response_set(TrainingSet.open(self.training_set(None))).values()
            human = (context.response for context in contexts_in(self.data / "train.jsonl", self.sizes.history))
            self._pool = list(dict.fromkeys([*generated, *human]))[: self.sizes.responses]
        return self._pool

    def measured(self, system: str) -> dict[str, Any]:
        """Hits, recall, and what the chosen replies are like."""
        model = SentenceTransformer(str(self.model(system)), device="cpu")
        pool, replies = self.pool(), [context.response for context in self.test]
        queries = encode(model, [format_context(one.turns, self.sizes.history) for one in self.test])
        own = encode(model, replies)
        vectors = self.untouched_vectors(model) if RECIPES[system] is None else encode(model, pool)
        ranks = ranks_among(queries, own, replies)
        index = faiss.IndexFlatIP(vectors.shape[1])
        index.add(vectors)
        scores, found = index.search(queries, 10)
        place = in_whole_set(queries, own, replies, scores, pool, found)
        chosen = [pool[first] for first in found[:, 0]]
        self.write_replies(system, chosen)
        quality = {"hits@1": ranks < 1, "hits@5": ranks < 5, "recall@1": place < 1, "recall@10": place < 10}
        hits = quality_of({"hits@1": quality["hits@1"]}).summary()["hits@1"]
        judged = self.likelihoods(chosen[: self.sizes.judged])
        return {
            **{name: float(values.mean()) for name, values in quality.items()},
            "ci_low": hits["low"],
            "ci_high": hits["high"],
            "generator_loglik": float(np.mean(judged)),
            **diversity(chosen),
            "responses": len(pool),
            "contexts": len(self.test),
            "per_context": {"hits@1": quality["hits@1"].astype(float).tolist(), "generator_loglik": judged},
        }

    def untouched_vectors(self, model: SentenceTransformer) -> np.ndarray:
        """Of the response set, by the encoder that all systems start from."""
        if self._vectors is None:
            self._vectors = encode(model, self.pool())
        return self._vectors

    def write_replies(self, system: str, chosen: list[str]) -> None:
        """What `haystack-distill compare-replies` takes."""
        lines = [
            json_lines.dumps({"_id": context.id, "context": context.turns, "reply": reply}, ensure_ascii=False) + "\n"
            for context, reply in zip(self.test, chosen, strict=True)
        ]
        (self.work / f"{system}.jsonl").write_text("".join(lines), encoding="utf-8")

    def likelihoods(self, chosen: list[str]) -> list[float]:
        """What the generator thinks of replies: log p(reply | context), token mean."""
        teacher = LikelihoodTeacher(self.reader, "response", name=Path(self.generator).name)
        asked = [
            Candidates("\n".join(context.turns), [reply], []) for context, reply in zip(self.test, chosen, strict=False)
        ]
        return [float(one.scores[0]) for one in teacher.score(asked)]

    def latency(self) -> dict[str, float]:
        """One context at a time. All systems are the same network, so one stands for all."""
        model, pool = SentenceTransformer(self.encoder, device="cpu"), self.pool()
        served = open_encoder(self._exported(model), "onnx")
        index = faiss.IndexHNSWFlat(model.get_embedding_dimension(), 32, faiss.METRIC_INNER_PRODUCT)
        index.hnsw.efSearch = 256
        index.add(self.untouched_vectors(model))
        asked = {format_context(one.turns, self.sizes.history): one for one in self.test[: self.sizes.timed]}

        def find(vectors: np.ndarray) -> str:
            return pool[int(index.search(vectors, 1)[1][0, 0])]

        timed = latencies(
            {
                "ms": lambda query: find(served.encode_batch([query])),
                "torch_ms": lambda query: find(encode(model, [query])),
                "generator_ms": lambda query: self._write(asked[query]),
            },
            list(asked),
            rounds=1,
            warm_up=1,
        )
        median = {name: float(np.median(times)) for name, times in timed.items()}
        return {**median, "speedup": median["generator_ms"] / median["ms"], "timed": len(asked)}

    def _exported(self, model: SentenceTransformer) -> Path:
        folder = self.work / "served"
        if not (folder / "onnx-fp32").exists():
            model.save(str(folder), create_model_card=False)
            export(folder, "onnx", "fp32", dev_set_of_texts(self.pool(), BiEncoder.load(str(folder), device="cpu")))
        return folder

    def _write(self, context: Context) -> str:
        reader = self.reader
        roles = ["user", "assistant"] if len(context.turns) % 2 else ["assistant", "user"]
        messages = [{"role": roles[n % 2], "content": turn} for n, turn in enumerate(context.turns)]
        ids = reader.tokenizer.apply_chat_template(
            messages, add_generation_prompt=True, return_tensors="pt", return_dict=True
        )
        with torch.inference_mode():
            written = reader.model.generate(
                **ids, max_new_tokens=self.sizes.new_tokens, do_sample=True, **SAMPLING, pad_token_id=0
            )
        return str(reader.tokenizer.decode(written[0, ids["input_ids"].shape[1] :], skip_special_tokens=True))


def encode(model: SentenceTransformer, texts: list[str]) -> np.ndarray:
    """Vectors of length 1."""
    return model.encode(texts, normalize_embeddings=True, batch_size=128, show_progress_bar=len(texts) > 5000)


if __name__ == "__main__":
    typer.run(main)
