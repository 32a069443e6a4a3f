"""
Generating, filtering and writing, so that a killed run loses at most what was being generated.

What a generator says goes to a journal beside the output as it comes, uncleaned; filters are applied at the end, so
they may change between a kill and the next start. The output appears in one step.
"""

import json
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from haystack_distill.files.folders import published, write_json
from haystack_distill.files.journal import Journal
from haystack_distill.files.progress import progress_bar
from haystack_distill.files.runs import already_made, claim, fingerprint, running
from haystack_distill.generation.cleaning import clean
from haystack_distill.generation.filters import Candidate, Filters, apply, counts
from haystack_distill.generation.requests import Generator, Reply, Request, Text
from haystack_distill.teachers.scores import total_usage

logger = logging.getLogger(__name__)

SUMMARY = "summary.json"
REJECTED = "rejected.jsonl"


@dataclass(frozen=True)
class Job:
    """
    What is to be written.

    :param mode: `questions`, `answers` or `responses`.
    :param sources: Request id -> what it is about: the passage, the question to answer, or the turns.
    :param known: Request id -> texts that are there already.
    :param counted: What was noticed while the job was made, for the summary.
    """

    mode: str
    requests: list[Request]
    sources: Mapping[str, tuple[str, ...]]
    prompt_hash: str
    seed: int
    known: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    counted: dict[str, int] = field(default_factory=dict)


Write = Callable[[Path, list[Candidate]], None]
"""Writes the texts that stay into a folder."""


def augment(
    job: Job,
    generator: Generator,
    filters: Filters,
    output: str | Path,
    write: Write,
    *,
    settings: dict[str, Any] | None = None,
    progress: bool = True,
) -> dict[str, Any]:
    """
    Generate texts, filter them, and write those that stay.

    :param output: The folder to make; one that is there already is kept if it was made of the same.
    :param write: Writes the folder's own files; `summary.json` and `rejected.jsonl` are added here.
    :param settings: What the filters were made with, to know whether an output was made in the same way.
    :returns: The summary: `mode`, `model`, `prompt_hash`, `seed`, `sources`, `sources_with_texts`, `generated`,
        `kept`, `filters` (how many texts each sent away, in their order), `set_aside` (`id` and `reason` of sources
        without any text), `missing_texts` (asked for, and not had after all tries), `shortened` (sources that were
        cut to fit), `usage` (calls and tokens), and what the job counted.
    :raises FileExistsError: If the output exists and was made of something else.
    :raises ValueError: If an unfinished run in the same place had other settings, or no text stays.
    :raises BlockingIOError: If another process works on the same output.
    :raises ConnectionError: If the generator can't be reached; what was generated is kept.
    """
    path = Path(output)
    run = _run(job, generator)
    made_of = fingerprint({**run, "filters": list(filters), "settings": settings}, 32)
    if already_made(path, SUMMARY, made_of):
        return json.loads((path / SUMMARY).read_text(encoding="utf-8"))
    with running(path) as workspace:
        claim(workspace, run)
        replies = generated(job.requests, generator, workspace / "replies.jsonl", progress=progress)
        kept, rejected = apply(filters, candidates_of(job, replies))
        summary = {**_summary(job, replies, kept, rejected, filters), "made_of": made_of}
        if not kept:
            raise ValueError(_nothing(path, summary))
        with published(path) as folder:
            write(folder, kept)
            write_json(folder / SUMMARY, summary)
            lines = (
                json.dumps({**asdict(candidate), "filter": name}, ensure_ascii=False) for candidate, name in rejected
            )
            (folder / REJECTED).write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    return summary


def generated(
    requests: Sequence[Request], generator: Generator, file: Path, *, progress: bool = True
) -> dict[str, Reply]:
    """Generate, or go on with it: request id -> reply. The journal lacks what failed, so that it is asked again."""
    journal = Journal(file)
    rows = ({**row, "texts": tuple(Text(**text) for text in row["texts"])} for row in journal.rows)
    replies = {row["id"]: Reply(**row) for row in rows}
    failed: dict[str, Reply] = {}
    with progress_bar("Generating", len(requests), len(replies), shown=progress) as show:
        for piece in generator.work(requests, frozenset(replies)):
            journal.append(*(asdict(reply) for reply in piece if not reply.failed))
            replies |= {reply.id: reply for reply in piece if not reply.failed}
            failed |= {reply.id: reply for reply in piece if reply.failed}
            show(len(replies) + len(failed))
    found = {**failed, **replies}
    return {request.id: found[request.id] for request in requests}


def candidates_of(job: Job, replies: dict[str, Reply]) -> list[Candidate]:
    """Cleaned texts with what they were written for."""
    return [
        Candidate(
            source_id=reply.id,
            sources=job.sources[reply.id],
            text=clean(text.text, job.mode, finished=text.finished),
            seed=text.seed,
            model=reply.model,
            loglik=text.loglik,
            known=job.known.get(reply.id, ()),
        )
        for reply in replies.values()
        for text in reply.texts
    ]


def _run(job: Job, generator: Generator) -> dict[str, Any]:
    requests = fingerprint([asdict(request) for request in job.requests], 32)
    return {
        "mode": job.mode,
        "sources": requests,
        "prompt": job.prompt_hash,
        "seed": job.seed,
        "texts": max((len(request.seeds) for request in job.requests), default=0),
        "generator": generator.identity,
    }


def _summary(
    job: Job,
    replies: dict[str, Reply],
    kept: list[Candidate],
    rejected: list[tuple[Candidate, str]],
    filters: Filters,
) -> dict[str, Any]:
    return {
        "mode": job.mode,
        "model": next((reply.model for reply in replies.values() if reply.texts), ""),
        "prompt_hash": job.prompt_hash,
        "seed": job.seed,
        "sources": len(job.requests),
        "sources_with_texts": len({candidate.source_id for candidate in kept}),
        "generated": len(kept) + len(rejected),
        "kept": len(kept),
        "filters": counts(rejected, filters),
        "set_aside": [
            {"id": reply.id, "reason": reply.reason or "no text"} for reply in replies.values() if not reply.texts
        ],
        "missing_texts": sum(len(request.seeds) - len(replies[request.id].texts) for request in job.requests),
        "shortened": sum(reply.cut > 0 for reply in replies.values()),
        "usage": total_usage(reply.usage for reply in replies.values()),
        **job.counted,
    }


def _nothing(path: Path, summary: dict[str, Any]) -> str:
    if not summary["generated"]:
        first = summary["set_aside"][0]
        why = f"the first, {first['id']!r}, because {first['reason']}"
        return f"Nothing was generated for {path}: all {summary['sources']} sources were set aside, {why}"
    sent_away = ", ".join(f"{name} {count}" for name, count in summary["filters"].items() if count)
    return (
        f"None of the {summary['generated']} generated texts stays, so {path} was not written: {sent_away}. Change the "
        "prompt, the examples or the filters; what was generated is kept for the next start."
    )
