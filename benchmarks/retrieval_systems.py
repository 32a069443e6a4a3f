"""What `benchmarks.retrieval` compares: every system is a row of `SYSTEMS`, every way to join two of `FUSIONS`."""

import gc
import hashlib
import json
import shutil
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import bm25s
import numpy as np
import Stemmer
from sentence_transformers import SentenceTransformer

import haystack_distill
from benchmarks.common import CachedTeacher, open_corpus, queries_to_align
from benchmarks.joining import FUSIONS, Candidates, best_weight
from benchmarks.kale import published_settings
from benchmarks.labels import NamedReader, labelled
from haystack_distill.align.job import align
from haystack_distill.align.settings import KaleSettings
from haystack_distill.align.training import TrainingSettings
from haystack_distill.data.beir import BeirFolder, Qrels
from haystack_distill.data.training_set import Row
from haystack_distill.evaluation.comparison import student_system
from haystack_distill.evaluation.dev_set import dev_set_of_texts, write_dev_set
from haystack_distill.evaluation.held_out import Queries
from haystack_distill.evaluation.quality import DEPTH, Quality, Run, measure, own_rows, ranking, search
from haystack_distill.files.folders import published, write_json
from haystack_distill.students.cutting import KALE_LAYERS, cut, find_stack

QUICK_QUERIES, QUICK_TEXTS = 60, 200
RERANKED = 16


@dataclass(frozen=True)
class Ranker:
    """
    A way from a query's text to documents.

    :param rank: Texts and how many documents are wanted -> candidates of each text.
    :param seconds: How long its training took; None if it was not trained.
    :param model: Gives the folder that serves it, of a query encoder.
    :param note: What a reader of the table should know.
    :param megabytes: What it holds in memory, where that is no encoder.
    """

    rank: Callable[[list[str], int], list[Candidates]]
    seconds: float | None = None
    model: Callable[[], Path] | None = None
    note: str = ""
    megabytes: float | None = None


class Bench:
    """
    A corpus, its encoder, and the systems that were made for it.

    :param folder: A BEIR folder.
    :param encoder: The encoder that makes the index.
    :param cache: Where students are kept.
    :param reader: What re-ranks, or None.
    :param keep_students: Whether students that other sources of this package trained are taken too.
    """

    def __init__(
        self,
        folder: Path,
        encoder: CachedTeacher,
        cache: Path,
        *,
        quick: bool = False,
        reader: NamedReader | None = None,
        keep_students: bool = False,
    ) -> None:
        self.name, self.folder, self.cache = folder.name, folder, cache
        self.encoder, self.quick, self.reader, self.keep_students = encoder, quick, reader, keep_students
        self.corpus, self.index = open_corpus(folder, encoder)
        self.queries, self.given = self.corpus.queries, queries_to_align(folder, self.corpus)
        self.test, self.dev = self.corpus.qrels["test"], self.given.dev_qrels
        if quick:
            self.test, self.dev = _some(self.test), _some(self.dev)
        self.identity = {"content": _content(folder), "encoder": encoder.made_by(encoder.query_prefix), "quick": quick}
        self._rankers: dict[tuple[str, str], Ranker] = {}
        self._runs: dict[tuple[str, str, str], Run] = {}

    def ranker(self, name: str, side: str) -> Ranker:
        """A system, made when it is first asked for."""
        key = (name, side)
        if key not in self._rankers:
            made = SYSTEMS[key](self)
            # Of the others only those stay that every row needs: candidates of thousands of queries fill memory.
            self._rankers = {one: self._rankers[one] for one in ALWAYS if one in self._rankers} | {key: made}
            self._runs = {one: run for one, run in self._runs.items() if one[:2] in ALWAYS}
        return self._rankers[key]

    def run(self, name: str, side: str, split: str = "test") -> Run:
        """What a system finds for the judged queries of a split; a query that is a document does not find itself."""
        key = (name, side, split)
        if key not in self._runs:
            qrels = self.test if split == "test" else self.dev
            found = self.ranker(name, side).rank([self.queries[query_id] for query_id in qrels], DEPTH)
            run = dict(zip(qrels, found, strict=True))
            for query_id, row in own_rows(self.index, self.queries, qrels).items():
                run[query_id].pop(self.index.ids[row], None)
            self._runs[key] = run
        return self._runs[key]

    def joined(self, name: str, side: str, fusion: str) -> tuple[Run, float | None]:
        """A system's candidates with those of BM25, and the weight that was fitted."""
        way = FUSIONS[fusion]
        words, dense, weight = self.run("bm25", ""), self.run(name, side), None
        if way.fitted_on == "test":
            weight = best_weight(words, dense, self.test)
        elif way.fitted_on == "dev":
            weight = best_weight(self.run("bm25", "", "dev"), self.run(name, side, "dev"), self.dev)
        return {query_id: way.join(words[query_id], dense[query_id], weight) for query_id in self.test}, weight

    @cached_property
    def encoder_alone(self) -> Quality:
        """What all systems are compared with."""
        return measure(self.run("encoder", ""), self.test)

    @cached_property
    def encoder_with_words(self) -> Quality:
        """What a team has that joins the encoder with BM25."""
        return measure(self.joined("encoder", "", "rrf")[0], self.test)

    @property
    def depth(self) -> int:
        """How many layers the encoder has."""
        return len(find_stack(self.encoder.model))

    def student(self, name: str, side: str, settings: KaleSettings) -> Path:
        """The folder of a student, of its plain cut and of facts about both; trained unless it is there."""
        if self.quick:
            training = replace(settings.training, epochs=1)
            settings = replace(settings, max_texts=QUICK_TEXTS, training=training)
        queries = self.given if side == "queries" else Queries()
        key = digest({**self.identity, "settings": asdict(settings), "queries": asdict(queries)})
        folder = self.cache / "students" / f"{self.name}-{name}-{side}-{key}"
        if folder.exists() and (self.keep_students or read_facts(folder)["code"] == CODE):
            return folder
        shutil.rmtree(folder, ignore_errors=True)
        work = self.cache / "runs" / f"{key}-{CODE}"
        aligned = align(self.index, self.encoder, settings, work, queries, test=self.corpus.texts_of("test"))
        with published(folder) as place:
            for part, model in (("student", aligned.student), ("cut", aligned.cut_only)):
                model.save(str(place / part), create_model_card=False)
                write_dev_set(place / part, aligned.dev)
            facts = {"code": CODE, "kept": aligned.kept_layers, "texts": aligned.texts, "settings": asdict(settings)}
            facts |= {"seconds": aligned.training.seconds, "stays_untrained": aligned.stays_untrained}
            write_json(place / "facts.json", facts)
        shutil.rmtree(work)
        gc.collect()  # trainers are full of cycles, and one with a deep teacher holds a gigabyte
        return folder

    def served_encoder(self) -> Path:
        """The folder of the encoder itself, with dev queries to judge its exports on."""
        folder = self.cache / "students" / f"{self.name}-encoder-{digest(self.identity)}"
        if not folder.exists():
            with published(folder) as place:
                cut(self.encoder, tuple(range(self.depth))).save(str(place), create_model_card=False)
                write_dev_set(place, dev_set_of_texts(list(self.corpus.documents.values()), self.encoder))
        return folder


def _some(qrels: Qrels) -> Qrels:
    return dict(list(qrels.items())[:: max(1, len(qrels) // QUICK_QUERIES)][:QUICK_QUERIES])


def digest(content: Any) -> str:
    """Changes when the content does."""
    return hashlib.sha256(json.dumps(content, sort_keys=True, default=str).encode()).hexdigest()[:16]


def _content(folder: Path) -> str:
    files = [folder / "corpus.jsonl", folder / "queries.jsonl", *sorted((folder / "qrels").glob("*.tsv"))]
    return hashlib.sha256(b"".join(hashlib.sha256(file.read_bytes()).digest() for file in files)).hexdigest()


def _code() -> str:
    """The sources of this package: what was made by others may differ."""
    place = Path(haystack_distill.__file__).parent
    return digest([file.read_text(encoding="utf-8") for file in sorted(place.rglob("*.py"))])


CODE = _code()


def read_facts(folder: Path) -> dict[str, Any]:
    """What is known of a student and how it was made."""
    facts: dict[str, Any] = json.loads((folder / "facts.json").read_text(encoding="utf-8"))
    return facts


def by_words(corpus: BeirFolder) -> Ranker:
    """BM25 (k1 1.2, b 0.75) by bm25s, with its English stop words and Snowball's stemmer."""
    stemmer = Stemmer.Stemmer("english")

    def tokens(texts: list[str]) -> Any:
        return bm25s.tokenize(texts, stopwords="english", stemmer=stemmer, show_progress=False)

    ids = list(corpus.documents)
    index = bm25s.BM25(k1=1.2, b=0.75)
    index.index(tokens(list(corpus.documents.values())), show_progress=False)

    def rank(texts: list[str], depth: int) -> list[Candidates]:
        places, scores = index.retrieve(tokens(texts), k=min(depth, len(ids)), show_progress=False)
        return [
            {ids[place]: float(score) for place, score in zip(*row, strict=True) if score > 0}
            for row in zip(places, scores, strict=True)
        ]

    size = sum(part.nbytes for part in index.scores.values() if isinstance(part, np.ndarray))
    return Ranker(rank, megabytes=size / 1e6)


def encoder(bench: Bench) -> Ranker:
    """The encoder of the index."""
    return Ranker(dense(bench, bench.encoder.encode_queries), model=bench.served_encoder)


def dense(bench: Bench, encode: Callable[[list[str]], np.ndarray]) -> Callable[[list[str], int], list[Candidates]]:
    """Exact search with an encoder's vectors."""

    def rank(texts: list[str], depth: int) -> list[Candidates]:
        names = [str(number) for number in range(len(texts))]
        run = search(bench.index, names, np.asarray(encode(texts)), depth)
        return [{key: run[name][key] for key in ranking(run[name])} for name in names]

    return rank


def saved(bench: Bench, model: Path, seconds: float | None = None, note: str = "") -> Ranker:
    """A query encoder in a folder."""
    loaded = SentenceTransformer(str(model), device="cpu", local_files_only=True)
    return Ranker(dense(bench, student_system("", loaded).encode), seconds, lambda: model, note)


def student(name: str, side: str, settings: Callable[[Bench], KaleSettings]) -> Callable[[Bench], Ranker]:
    """A student of some settings."""

    def make(bench: Bench) -> Ranker:
        folder = bench.student(name, side, settings(bench))
        facts = read_facts(folder)
        note = "untrained: worse on dev" if facts["stays_untrained"] else ""
        return saved(bench, folder / "student", facts["seconds"], note)

    return make


def plain_cut(layers: int) -> Callable[[Bench], Ranker]:
    """The layers that a student of the index keeps, neither folded nor trained."""
    return lambda bench: saved(bench, bench.student(f"layers-{layers}", "index", ours(layers)(bench)) / "cut")


def ours(layers: int | None) -> Callable[[Bench], KaleSettings]:
    """The default recipe; None leaves the encoder uncut."""
    return lambda bench: KaleSettings(layers=bench.depth if layers is None else layers)


def kale_published(layers: int) -> Callable[[Bench], KaleSettings]:
    """The paper's recipe, on train queries."""
    return lambda _: published_settings(layers)


def kale_ours(layers: int) -> Callable[[Bench], KaleSettings]:
    """The paper's loss and layers; text, passes and rates are ours."""
    return lambda _: replace(published_settings(layers), index_text=True, training=TrainingSettings())


def reranked(bench: Bench) -> Ranker:
    """The encoder's first documents in the order of the likelihood of the question, by a reader."""
    assert bench.reader is not None
    found, texts = bench.run("encoder", ""), bench.corpus.documents
    first = {query_id: list(found[query_id])[:RERANKED] for query_id in bench.test}
    rows = [
        Row(
            query_id=query_id,
            query=bench.queries[query_id],
            answers=[],
            document_ids=documents,
            documents=[texts[document] for document in documents],
            retriever_scores=[found[query_id][document] for document in documents],
        )
        for query_id, documents in first.items()
    ]
    scored, seconds = labelled(rows, "question", bench.reader, source=str(bench.folder))
    order = {
        row.query: dict(zip(row.document_ids, row.teacher_scores or row.retriever_scores, strict=True))
        for row in scored
    }

    def rank(texts: list[str], _: int) -> list[Candidates]:
        return [{key: order[text][key] for key in ranking(order[text])} for text in texts]

    return Ranker(rank, note=f"reading took {1000 * seconds / len(rows):.0f} ms a query")


System = tuple[str, str]
"""Its name, and what it was trained on: `index`, `queries` (train queries and the index) or nothing."""

RECIPES: dict[System, Callable[[Bench], KaleSettings]] = {
    **{(f"layers-{n}", "index"): ours(n) for n in (2, 0, 1)},
    ("encoder-trained", "index"): ours(None),
    **{(f"kale-ours-{n}", "index"): kale_ours(n) for n in (2, 1)},
    **{(f"kale-published-{n}", "queries"): kale_published(n) for n in (2, 1)},
    **{(f"layers-{n}", "queries"): ours(n) for n in (2, 0, 1)},
    ("encoder-trained", "queries"): ours(None),
    **{(f"kale-ours-{n}", "queries"): kale_ours(n) for n in (2, 1)},
}
"""What is trained."""

SYSTEMS: dict[System, Callable[[Bench], Ranker]] = {
    ("bm25", ""): lambda bench: by_words(bench.corpus),
    ("encoder", ""): encoder,
    **{(f"cut-{n}", ""): plain_cut(n) for n in (2, 1, 0)},
    **{system: student(*system, recipe) for system, recipe in RECIPES.items()},
    (f"reader-{RERANKED}", ""): reranked,
}
"""Every system, in the order in which rows are made; add another here."""

ALWAYS = {("bm25", ""), ("encoder", "")}
NOT_JOINED = {"bm25", f"reader-{RERANKED}"}


def systems_of(bench: Bench) -> list[tuple[str, str, str | None]]:
    """Name, side and way of joining with BM25 of every row that the corpus and its encoder allow."""
    found: list[tuple[str, str, str | None]] = []
    for name, side in SYSTEMS:
        if _can_be_made(name, side, bench):
            ways = [way for way, one in FUSIONS.items() if one.fitted_on != "dev" or bench.dev]
            found += [(name, side, way) for way in (None, *([] if name in NOT_JOINED else ways))]
    return found


def _can_be_made(name: str, side: str, bench: Bench) -> bool:
    stem, _, number = name.rpartition("-")
    if stem.startswith("kale") and int(number) not in KALE_LAYERS.get(bench.depth, {}):
        return False
    if stem in {"layers", "cut"} and int(number) > bench.depth:
        return False
    return (side != "queries" or bool(bench.given.train)) and (stem != "reader" or bench.reader is not None)
