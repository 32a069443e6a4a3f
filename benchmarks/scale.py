"""
What bulk work gains from workers, that its bits do not depend on them, and what reading an index costs as it grows.

    python -m benchmarks.scale [--data BEIR_FOLDER] [--json FILE] [--quick] [--size N]

Each job runs in this process, with two workers and with four, on one thread each. Seconds count everything, the start
of Ray and of the workers too; of four workers only the bits are looked at. Indexes are made vectors of 64 dimensions
with short texts, handed over in pages of 1,000, of which the view holds a sample as `KaleAligner` does; memory is the
process's own, resident and not shared with files, above what it was before.
"""

import hashlib
import json as json_format
import os
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from multiprocessing import get_context
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
import typer
from haystack import Document
from haystack.document_stores.in_memory import InMemoryDocumentStore

from benchmarks.common import minilm, print_rows, read_rows, write_rows
from benchmarks.stores import watched
from demo.packaged import smollm2
from demo.questions import write_questions
from haystack_distill import (
    GenerativeAugmenter,
    KaleQueryEncoder,
    TeacherLabeller,
    TeacherLikelihoodScorer,
    TrainingSetBuilder,
)
from haystack_distill.data.beir import BeirFolder, read_beir
from haystack_distill.data.index import Page, Sample, read_index
from haystack_distill.data.training_set import Row, write_training_set
from haystack_distill.students.bi_encoder import BiEncoder
from haystack_integrations.components.distill.parts.reembedding import reembed

WORKERS = (1, 2, 4)
SIZES = (10_000, 100_000, 1_000_000, 10_000_000)
DIM, PAGE, HELD, PASSAGES = 64, 1_000, 100_000, 8
COLUMNS = (
    ("job", "job", ""),
    ("workers", "workers", "d"),
    ("items", "items", ",d"),
    ("s", "seconds", ".1f"),
    ("items/s", "items_per_second", ",.1f"),
    ("same bits", "same_bits", ""),
    ("own MiB", "view_mib", ".0f"),
)


@dataclass(frozen=True)
class Bench:
    """What is worked on: a corpus, two models, and how many items each job gets."""

    data: BeirFolder
    encoder: str
    reader: str
    sizes: dict[str, int]

    def passages(self, job: str) -> list[str]:
        """As many passages as a job gets, 400 letters of each, again from the start where there are too few."""
        texts = [text[:400] for text in self.data.documents.values()]
        return [texts[number % len(texts)] for number in range(self.sizes[job])]


def labels(bench: Bench, workers: int, work: Path) -> bytes:
    """A reader scores eight passages a question."""
    texts, rows = bench.passages("labels"), []
    for number, question in enumerate(list(bench.data.queries.values())[: len(texts) // PASSAGES]):
        found = texts[PASSAGES * number : PASSAGES * (number + 1)]
        ids = [str(place) for place in range(len(found))]
        rows.append(Row(str(number), question, [], ids, found, [0.0] * len(found)))
    write_training_set(work / "set", rows)
    scorer = TeacherLikelihoodScorer(model=bench.reader, dtype="bfloat16")
    labeller = TeacherLabeller(scorer=scorer, rows_at_once=2, num_workers=workers, progress_bar=False)
    labeller.run(training_set=str(work / "set"))
    return content(work / "set", "shard-*")


def embedding(bench: Bench, workers: int, work: Path) -> bytes:
    """A new document encoder for all documents of a store."""
    del work
    source, target = InMemoryDocumentStore(), InMemoryDocumentStore()
    texts = bench.passages("embedding")
    source.write_documents(
        [Document(id=f"{place:08}", content=one, embedding=[0.0]) for place, one in enumerate(texts)]
    )
    encoder = replace(BiEncoder.load(bench.encoder, device="cpu"), num_workers=workers)
    reembed(source, target, encoder, progress=False)
    found = sorted(target.filter_documents(), key=lambda document: document.id)
    return np.array([document.embedding for document in found]).tobytes()


def targets(bench: Bench, workers: int, work: Path) -> bytes:
    """What the teacher makes of texts to align on."""
    del work
    encoder = replace(BiEncoder.load(bench.encoder, device="cpu"), num_workers=workers)
    return encoder.encode_targets([text[:200] for text in bench.passages("targets")]).tobytes()


def mining(bench: Bench, workers: int, work: Path) -> bytes:
    """Candidates of questions out of FAISS, which is filled before."""
    from haystack_integrations.components.retrievers.faiss import FAISSEmbeddingRetriever
    from haystack_integrations.document_stores.faiss import FAISSDocumentStore

    builder = TrainingSetBuilder(
        retriever=FAISSEmbeddingRetriever(document_store=FAISSDocumentStore(index_path=str(work.parent / "faiss"))),
        text_embedder=KaleQueryEncoder(model=bench.encoder),
        output=str(work / "set"),
        shard_rows=max(1, bench.sizes["mining"] // 16),
        num_workers=workers,
        progress_bar=False,
    )
    builder.run(queries=str(work.parent / "questions.jsonl"))
    return content(work / "set", "shard-*")


def generation(bench: Bench, workers: int, work: Path) -> bytes:
    """Questions about passages, by a local model."""
    augmenter = GenerativeAugmenter(
        model=bench.reader,
        dtype="bfloat16",
        output=str(work / "questions"),
        n=1,
        batch_size=4,
        examples=[],
        words=[0, 100],
        sampling={"max_new_tokens": 16},
        without=["no_question", "generic", "repetition", "copy", "too_common", "duplicate"],
        num_workers=workers,
        progress_bar=False,
    )
    documents = [Document(id=str(place), content=one) for place, one in enumerate(bench.passages("generation"))]
    augmenter.run(documents=documents)
    return content(work / "questions", "queries.jsonl")


JOBS: dict[str, Callable[[Bench, int, Path], bytes]] = {
    "labels": labels,
    "embedding": embedding,
    "targets": targets,
    "mining": mining,
    "generation": generation,
}
FULL = {"labels": 128, "embedding": 512, "targets": 1024, "mining": 256, "generation": 8}
QUICK = {"labels": 32, "embedding": 512, "targets": 256, "mining": 16, "generation": 8}


def main(
    json: Annotated[Path | None, typer.Option(help="Write the rows to this file; its rows are not run again.")] = None,
    data: Annotated[Path | None, typer.Option(help="A BEIR folder; default: Python's documentation.")] = None,
    reader: Annotated[str | None, typer.Option(help="A causal language model; default: SmolLM2-135M.")] = None,
    size: Annotated[list[int] | None, typer.Option(help="How many vectors an index has.")] = None,
    quick: Annotated[bool, typer.Option(help="Little work and small indexes: shows that it runs.")] = False,
) -> None:
    """Print the table."""
    os.environ["OMP_NUM_THREADS"] = "1"  # of the workers; they have one in any case, and this process has another
    torch.set_num_threads(1)
    rows = read_rows(json)
    with tempfile.TemporaryDirectory(prefix="scale-") as place:
        folder = Path(place)
        if data is None:
            write_questions(folder / "data")
        bench = Bench(read_beir(data or folder / "data"), minilm(), reader or smollm2(), QUICK if quick else FULL)
        prepare(bench, folder)
        for job in JOBS:
            for workers in WORKERS:
                if not any((row["job"], row["workers"]) == (job, workers) for row in rows):
                    one = next((row for row in rows if (row["job"], row["workers"]) == (job, 1)), None)
                    rows.append(measured(bench, job, workers, folder, one))
                    write_rows(json, rows)
                    print_rows(rows[-1:], COLUMNS, "")
    for number in size or ((1_000, 10_000) if quick else SIZES):
        if not any((row["job"], row["items"]) == ("reading an index", number) for row in rows):
            with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as alone:
                rows.append(alone.submit(reading, number).result())
            write_rows(json, rows)
    print_rows(rows, COLUMNS, "Bulk work")


def prepare(bench: Bench, folder: Path) -> None:
    """Questions and an index for mining."""
    from haystack_integrations.document_stores.faiss import FAISSDocumentStore

    asked, texts = list(bench.data.queries.values()), bench.passages("embedding")
    lines = [
        json_format.dumps({"_id": str(number), "text": asked[number % len(asked)]})
        for number in range(bench.sizes["mining"])
    ]
    (folder / "questions.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
    vectors = BiEncoder.load(bench.encoder, device="cpu").encode_documents(texts)
    store = FAISSDocumentStore(index_path=str(folder / "faiss"), embedding_dim=vectors.shape[1])
    rows = zip(texts, vectors.tolist(), strict=True)
    store.write_documents(
        [Document(id=str(place), content=text, embedding=row) for place, (text, row) in enumerate(rows)]
    )
    store.save(folder / "faiss")


def measured(bench: Bench, job: str, workers: int, folder: Path, alone: dict[str, Any] | None) -> dict[str, Any]:
    """Do a job, and compare what came of it with what one process made."""
    work = folder / f"{job}-{workers}"
    work.mkdir()
    start = time.perf_counter()
    digest = hashlib.sha256(JOBS[job](bench, workers, work)).hexdigest()
    row: dict[str, Any] = {"job": job, "workers": workers, "items": bench.sizes[job], "digest": digest}
    if workers <= (os.cpu_count() or 1):
        row["seconds"] = time.perf_counter() - start
        row["items_per_second"] = row["items"] / row["seconds"]
    return row | {"same_bits": digest == alone["digest"] if alone else True}


def content(folder: Path, files: str) -> bytes:
    """Files of a folder, in one order."""
    return b"".join(path.read_bytes() for path in sorted(folder.glob(files)))


def reading(number: int) -> dict[str, Any]:
    """Read an index of so many vectors into a view that holds a sample."""
    row: dict[str, Any] = {"job": "reading an index", "workers": 1, "items": number}
    with tempfile.TemporaryDirectory(prefix="scale-") as place:
        with watched(row, "view"):
            view = read_index(pages(number), Path(place) / "view", "cosine", Sample(min(1.0, HELD / number)))
        row["held"] = len(view)
    row["seconds"] = row.pop("view_seconds")
    return row | {"items_per_second": number / row["seconds"]}


def pages(number: int) -> Iterator[Page]:
    """Made documents, a page at a time."""
    random = np.random.default_rng(0)
    for start in range(0, number, PAGE):
        vectors = random.normal(size=(min(PAGE, number - start), DIM)).astype(np.float32)
        yield [(f"d{start + place}", f"Document {start + place}.", row) for place, row in enumerate(vectors)]


if __name__ == "__main__":
    typer.run(main)
