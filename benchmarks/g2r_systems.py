"""The systems of `benchmarks.g2r`: what each is trained on and labelled by, and the replies that it chooses."""

import hashlib
import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple

import faiss
import numpy as np
from sentence_transformers import SentenceTransformer

from benchmarks.dialogues import some_dialogues, spread
from benchmarks.replies import in_whole_set, of_sets
from haystack_distill.data.beir import write_lines
from haystack_distill.data.dialogues import Context, format_context, read_contexts
from haystack_distill.data.training_set import TrainingSet
from haystack_distill.generation.local import LocalGenerator, Sampling
from haystack_distill.generation.requests import Request, seed_for
from haystack_distill.responses.building import write_responses
from haystack_distill.responses.evaluator import ranks_among
from haystack_distill.responses.job import distill_responses
from haystack_distill.responses.rows import query_text, response_set
from haystack_distill.responses.training import NEED_SCORES, G2RSettings
from haystack_distill.teachers.labelling import label
from haystack_distill.teachers.likelihood import LikelihoodTeacher
from haystack_distill.teachers.readers import load_reader
from haystack_distill.teachers.scores import ROWS_AT_ONCE, Candidates, Scored, Teacher
from haystack_distill.teachers.similarity import SimilarityTeacher

WORK = Path("benchmark_output/g2r")
SAMPLING = {"temperature": 0.7, "top_k": 20}
"""Of replies: small generators wander off at a temperature of 1."""

TEXTS_AT_ONCE = 40
CANDIDATES = 50
"""Responses that are retrieved, and of which sets are chosen."""

HUMAN, RANDOM, GENERATOR = "human", "random", "generator"
"""Rows that no retriever chooses: what people replied, what somebody said elsewhere, what the generator writes."""


class Recipe(NamedTuple):
    """How a system is trained: recipe, the signal that labels its training set, alpha, and what it should beat."""

    recipe: str
    signal: str | None
    alpha: float
    before: str


UNTOUCHED = "untouched"
RECIPES = {
    "dialogues": Recipe("dialogues", None, 0.0, UNTOUCHED),
    "data": Recipe("data", None, 0.0, "dialogues"),
    "data+ll": Recipe("model", "response", 0.1, "data"),
    "data+ll-alpha-0.25": Recipe("model", "response", 0.25, "data"),
    "data+mi": Recipe("model", "mi", 0.1, "data"),
    "data+similarity": Recipe("model", "similarity", 0.1, "data"),
    "data+control": Recipe("model", "control", 0.1, "data"),
    "data+control-alpha-0.25": Recipe("model", "control", 0.25, "data"),
    "strong": Recipe("strong", "response", 0.0, "data"),
    "strong-similarity": Recipe("strong", "similarity", 0.0, "data"),
    "strong-pmi": Recipe("strong", "pmi", 0.0, "data"),
}
STUDENTS = {"data-layers-2": ("data", 2), "data-layers-0": ("data", 0)}
"""Query encoders cut down against the response set of a system: of how many layers."""

BEFORE = {
    **{name: recipe.before for name, recipe in RECIPES.items()},
    **{name: of for name, (of, _) in STUDENTS.items()},
}
"""System -> the one that it should beat, or that it is a student of."""

SYSTEMS = (HUMAN, RANDOM, GENERATOR, UNTOUCHED, *RECIPES, *STUDENTS)


class Control:
    """A teacher that knows: what a person replied has 5, what was generated 0. What it can't move, no teacher can."""

    identity = {"model": "control", "signal": "control"}  # noqa: RUF012

    def score(self, rows: Any) -> list[Scored]:
        """Score passages; the answers of a row are what was generated for it."""
        return [Scored(np.array([0.0 if text in set(row.answers) else 5.0 for text in row.passages])) for row in rows]


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

QUICK = Sizes(12, 2, 8, 12, 30, 5, 200, 3, 8, 1, 8, 3)


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
        self.test = spread(read_contexts(data / "test.jsonl", sizes.history), sizes.test)
        self._reader: Any = None
        self._pool: list[str] = []
        self._vectors: dict[str, np.ndarray] = {}

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
            teacher = self._teacher(signal)
            rows = getattr(teacher, "rows_at_once", ROWS_AT_ONCE)
            label(folder, teacher.identity, lambda: teacher, rows_at_once=rows)
        return folder

    def _teacher(self, signal: str) -> Teacher:
        if signal == "control":
            return Control()
        if signal == "similarity":
            return SimilarityTeacher(SentenceTransformer(self.encoder, device="cpu"), name=self.encoder)
        return LikelihoodTeacher(self.reader, signal, name=Path(self.generator).name)

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
            batch_size=TEXTS_AT_ONCE,
        )
        return str(augmenter.run(source=str(some))["output"])

    def model(self, system: str) -> Path:
        """Train a system, or find it trained."""
        if system == UNTOUCHED:
            return Path(self.encoder)
        recipe, signal, alpha, _ = RECIPES[system]
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
            human = (context.response for context in read_contexts(self.data / "train.jsonl", self.sizes.history))
            self._pool = list(dict.fromkeys([*generated, *human]))[: self.sizes.responses]
        return self._pool

    def chosen(self, system: str) -> tuple[list[str], dict[str, np.ndarray]]:
        """What a system replies to the test contexts, and hits and recall where it ranks; written for people too."""
        if system in {UNTOUCHED, *RECIPES, *STUDENTS}:
            replies, quality = self._found(system)
        else:
            replies, quality = self._said(system), {}
        lines = (
            json.dumps({"_id": context.id, "context": context.turns, "reply": reply}, ensure_ascii=False) + "\n"
            for context, reply in zip(self.test, replies, strict=True)
        )
        (self.work / f"{system}.jsonl").write_text("".join(lines), encoding="utf-8")
        return replies, quality

    def encoders(self, system: str) -> tuple[Path, Path]:
        """Of contexts and of responses: one and the same, but for students."""
        if system not in STUDENTS:
            return self.model(system), self.model(system)
        of, layers = STUDENTS[system]
        folder = self.work / system
        if not folder.exists():
            self._align(self.model(of), layers, folder)
        return folder, self.model(of)

    def _align(self, teacher: Path, layers: int, output: Path) -> None:
        """Cut the query side of a retriever down, against the response set as its index."""
        from haystack import Document
        from haystack.document_stores.in_memory import InMemoryDocumentStore

        from haystack_distill import KaleAligner

        store = InMemoryDocumentStore(embedding_similarity_function="cosine")
        texts = zip(self.pool(), self.vectors(teacher), strict=True)
        store.write_documents([Document(content=text, embedding=vector.tolist()) for text, vector in texts])
        queries = self.work / "queries.jsonl"
        rows = TrainingSet.open(self.training_set(None))
        write_lines(queries, ({"_id": row.query_id, "text": query_text(row.query, self.sizes.history)} for row in rows))
        epochs = None if self.sizes.timed > QUICK.timed else 1
        aligner = KaleAligner(
            document_store=store, teacher=str(teacher), layers=layers, output=str(output), epochs=epochs
        )
        aligner.run(queries=str(queries))

    def vectors(self, model: Path) -> np.ndarray:
        """Of the response set."""
        if model.name not in self._vectors:
            self._vectors[model.name] = encode(SentenceTransformer(str(model), device="cpu"), self.pool())
        return self._vectors[model.name]

    def _found(self, system: str) -> tuple[list[str], dict[str, np.ndarray]]:
        of_queries, of_responses = self.encoders(system)
        pool, replies = self.pool(), [context.response for context in self.test]
        contexts = [format_context(one.turns, self.sizes.history) for one in self.test]
        queries = encode(SentenceTransformer(str(of_queries), device="cpu"), contexts)
        own = encode(SentenceTransformer(str(of_responses), device="cpu"), replies)
        vectors = self.vectors(of_responses)
        ranks = ranks_among(queries, own, replies)
        index = faiss.IndexFlatIP(vectors.shape[1])
        index.add(vectors)
        scores, found = index.search(queries, min(CANDIDATES, len(pool)))
        place = in_whole_set(queries, own, replies, scores[:, :10], pool, found[:, :10])
        quality = {"hits@1": ranks < 1, "hits@5": ranks < 5, "recall@1": place < 1, "recall@10": place < 10}
        quality |= of_sets(vectors[found], own)
        return [pool[first] for first in found[:, 0]], quality

    def _said(self, row: str) -> list[str]:
        if row == HUMAN:
            return [context.response for context in self.test]
        if row == RANDOM:
            every = list(read_contexts(self.data / "train.jsonl", self.sizes.history))
            drawn = np.random.default_rng(0).integers(len(every), size=len(self.test))
            return [every[number].response for number in drawn]
        if not (self.work / f"{GENERATOR}.jsonl").is_file():
            written = written_by(self.reader, self.generator, self.test, 1, self.sizes.new_tokens)
            return [written[context.id][0] for context in self.test]
        return self.kept(GENERATOR)

    def kept(self, system: str) -> list[str]:
        """The replies that a system chose before."""
        lines = (self.work / f"{system}.jsonl").read_text(encoding="utf-8").splitlines()
        return [json.loads(line)["reply"] for line in lines]

    def likelihoods(self, chosen: list[str]) -> list[float]:
        """What the generator thinks of replies: log p(reply | context), token mean."""
        teacher = LikelihoodTeacher(self.reader, "response", name=Path(self.generator).name)
        asked = [
            Candidates("\n".join(context.turns), [reply], []) for context, reply in zip(self.test, chosen, strict=False)
        ]
        return [float(one.scores[0]) for one in teacher.score(asked)]


def written_by(
    reader: Any, name: str, contexts: list[Context], count: int, new_tokens: int = 32
) -> dict[str, list[str]]:
    """What a generator replies to contexts: id of the context -> so many texts."""
    sampling = Sampling(max_new_tokens=new_tokens, **SAMPLING)  # type: ignore[arg-type]
    generator = LocalGenerator(reader, Path(name).name, sampling, batch_size=TEXTS_AT_ONCE)
    asked = [
        Request(one.id, tuple(one.turns), tuple(seed_for(0, one.id, number) for number in range(count)), cue="B:")
        for one in contexts
    ]
    replies = (reply for some in generator.work(asked, set()) for reply in some)
    return {reply.id: [text.text.strip() or "..." for text in reply.texts] for reply in replies}


def encode(model: SentenceTransformer, texts: list[str]) -> np.ndarray:
    """Vectors of length 1."""
    return model.encode(texts, normalize_embeddings=True, batch_size=128, show_progress_bar=len(texts) > 5000)
