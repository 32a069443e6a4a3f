"""
What a teacher's score costs, beside the same reading without any scores and beside the straightforward way.

    python -m benchmarks.teachers [--reader MODEL] [--dtype bfloat16] [--json FILE] [--quick]

For each signal and size: passages a second; `vs_plain`, our time over that of the plain forward pass of the same
prompts in the same batches, on SDPA, with the vocabulary computed for one token alone; `vs_naive`, the time of a loop
of `output_attentions=True`, one passage at a time (for icr and heads: one prompt with all passages at a time, with the
question and without), over ours, in the same precision and, where that is bfloat16, in float32 too; `memory_vs_plain`,
peak memory of the process over that of the plain forward pass. A passage is seldom found for one question alone: rows
of 8 `questions` score the same passages for each of them, as labelling a corpus does; neither the plain forward pass
nor the loop shares anything. All ways run in turn in one process; figures are medians. Texts are the language reference
that comes with every Python.
"""

import ctypes
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from pydoc_data.topics import topics
from typing import Annotated, Any

import numpy as np
import torch
import typer

from benchmarks.common import print_rows, write_rows
from demo.packaged import smollm2
from haystack_distill.teachers import prompts as default
from haystack_distill.teachers.attention_signals import AttentionTeacher
from haystack_distill.teachers.causal import by_length
from haystack_distill.teachers.heads import Heads
from haystack_distill.teachers.in_context import NO_QUESTION
from haystack_distill.teachers.likelihood import LikelihoodTeacher
from haystack_distill.teachers.readers import load_reader
from haystack_distill.teachers.scores import Candidates

SIGNALS = ("question", "pdist", "dkrr", "adist", "icr", "heads")
JOINT = ("icr", "heads")
NAIVE_UP_TO = 1000
"""Tokens: beyond that all attention of all layers takes more memory than this is worth."""

QUESTION, ANSWER = "What does the language reference say about {}?", "they are local to the block"
COLUMNS = (
    ("signal", "signal", ""),
    ("passages", "passages", "d"),
    ("tokens each", "tokens", "d"),
    ("questions", "questions", "d"),
    ("passages a second", "passages_per_second", ".2f"),
    ("time / plain", "vs_plain", ".2f"),
    ("naive / time", "vs_naive", ".1f"),
    ("naive float32 / time", "vs_naive_float32", ".1f"),
    ("memory / plain", "memory_vs_plain", ".2f"),
    ("peak MiB", "peak_mib", ".0f"),
)


def main(
    reader: Annotated[str | None, typer.Option(help="A causal language model; default: SmolLM2-135M.")] = None,
    dtype: Annotated[str | None, typer.Option(help="Of the reader: float32 or bfloat16.")] = None,
    json: Annotated[Path | None, typer.Option(help="Write the rows to this file.")] = None,
    rounds: Annotated[int, typer.Option(help="How often everything is timed.")] = 3,
    signal: Annotated[list[str] | None, typer.Option(help="Only these signals.")] = None,
    size: Annotated[list[str] | None, typer.Option(help="PASSAGESxTOKENS; default: 8x150, 2x1000, 1x4000.")] = None,
    questions: Annotated[list[int] | None, typer.Option(help="Over the same passages; default: 1 and 8.")] = None,
    quick: Annotated[bool, typer.Option(help="Two short passages, once: shows that it runs.")] = False,
) -> None:
    """Print the table."""
    name = reader or smollm2()
    rows: list[dict[str, Any]] = []
    sizes = [tuple(map(int, one.split("x"))) for one in size or (["2x20"] if quick else ["8x150", "2x1000", "1x4000"])]
    exact = load_reader(name, dtype="float32", max_passage_tokens=1100) if dtype == "bfloat16" and not quick else None
    for passages, tokens in sizes:
        loaded = load_reader(name, dtype=dtype, max_passage_tokens=max(512, tokens + 1))
        for chosen in signal or SIGNALS:
            joint = chosen in JOINT and passages == 1
            cuts = texts(loaded.tokenizer, *((8, tokens // 8) if joint else (passages, tokens)))
            for count in [1] if chosen in JOINT or tokens > NAIVE_UP_TO else questions or [1, 8]:
                asked = [Candidates(QUESTION.format(topic), cuts, [ANSWER]) for topic in sorted(topics)[:count]]
                rows.append(
                    {"tokens": tokens, "passages": passages, "questions": count}
                    | measured(loaded, chosen, asked, rounds, tokens <= NAIVE_UP_TO, exact)
                )
                write_rows(json, rows)
                print_rows(rows[-1:], COLUMNS, "")
    print_rows(rows, COLUMNS, f"{Path(name).name}, {loaded.model.dtype}, {torch.get_num_threads()} threads")


def texts(tokenizer: Any, passages: int, tokens: int) -> list[str]:
    """Passages of exactly so many tokens."""
    ids = tokenizer("\n".join(topics.values()), add_special_tokens=False, verbose=False)["input_ids"]
    return [tokenizer.decode(ids[start : start + tokens]) for start in range(0, passages * tokens, tokens)]


def measured(
    reader: Any, signal: str, asked: list[Candidates], rounds: int, naive: bool, exact: Any = None
) -> dict[str, Any]:
    """Time all ways in turn; memory is that of the last round."""
    ways = {"ours": ours(reader, signal, asked), "plain": plain(reader, signal, asked)}
    if naive:
        ways["naive"] = straightforward(reader, signal, asked)
        if exact is not None:
            ways["naive_float32"] = straightforward(exact, signal, asked)
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    peaks: dict[str, float | None] = {}
    for turn in range(rounds):
        for name in list(ways)[turn % len(ways) :] + list(ways)[: turn % len(ways)]:
            before = reset_peak()
            start = time.perf_counter()
            ways[name]()
            seconds[name].append(time.perf_counter() - start)
            peaks[name] = peak_mib() if before else None
    ratios = {name: float(np.median(np.array(seconds[name]) / np.array(seconds["ours"]))) for name in ways}
    own, other = peaks["ours"], peaks["plain"]
    return {
        "signal": signal,
        "passages_per_second": sum(len(one.passages) for one in asked) / float(np.median(seconds["ours"])),
        "vs_plain": 1 / ratios["plain"],
        "vs_naive": ratios.get("naive"),
        "vs_naive_float32": ratios.get("naive_float32"),
        "memory_vs_plain": own / other if own and other else None,
        "peak_mib": own,
        "seconds": {name: float(np.median(taken)) for name, taken in seconds.items()},
    }


def ours(reader: Any, signal: str, asked: list[Candidates]) -> Callable[[], Any]:
    """The teacher."""
    if signal in {"question", "pdist"}:
        teacher: Any = LikelihoodTeacher(reader, signal)
    else:
        middle = reader.layers // 2
        heads = Heads("", "core", [(middle, 0), (middle + 1, 1)], [[0.0]] * reader.layers, 8)
        teacher = AttentionTeacher(reader, signal, heads=heads if signal == "heads" else None)
    return lambda: teacher.score(asked)


def prompts_of(reader: Any, signal: str, asked: list[Candidates]) -> list[list[int]]:
    """The tokens that a signal has to read."""
    prompts = []
    for row in asked:
        if signal in JOINT:
            prompts.append(reader.encode(default.RELEVANCE, row.query, row.passages).ids)
            continue
        target = row.answers[0] if signal in {"pdist", "adist"} else row.query if signal == "question" else None
        prompt, query = (default.QUESTION, None) if signal == "question" else (default.ANSWER, row.query)
        prompts += [reader.encode(prompt, query, [passage], target).ids for passage in row.passages]
    return prompts


def plain(reader: Any, signal: str, asked: list[Candidates]) -> Callable[[], Any]:
    """The same prompts in the same batches, and nothing read out of them."""
    prompts = prompts_of(reader, signal, asked)

    def forward() -> None:
        reader.model.set_attn_implementation("sdpa")
        with torch.inference_mode():
            for numbers in by_length(prompts, range(len(prompts)), reader.batch_size):
                inputs = reader._padded([prompts[number] for number in numbers], 0)
                reader.model(input_ids=inputs, use_cache=False, logits_to_keep=1)
        reader.readable()

    return forward


def straightforward(reader: Any, signal: str, asked: list[Candidates]) -> Callable[[], Any]:
    """All attention of all layers and all of the vocabulary, one prompt at a time."""
    prompts = prompts_of(reader, signal, asked)
    if signal in JOINT:
        prompts += [reader.encode(default.RELEVANCE, NO_QUESTION, row.passages).ids for row in asked]

    def forward() -> None:
        reader.model.set_attn_implementation("eager")
        with torch.inference_mode():
            for prompt in prompts:
                output = reader.model(input_ids=reader._padded([prompt], 0), output_attentions=True)
                torch.stack([layer[0, :, -1] for layer in output.attentions]).mean()
                output.logits.float().log_softmax(-1)
        reader.readable()

    return forward


def reset_peak() -> bool:
    """Forget the process's peak memory, where the system can (Linux)."""
    with suppress(OSError):
        ctypes.CDLL("libc.so.6").malloc_trim(0)
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
        return True
    return False


def peak_mib() -> float:
    """The process's peak memory since then."""
    status = Path("/proc/self/status").read_text(encoding="ascii")
    return float(status.split("VmHWM:")[1].split()[0]) / 1024


if __name__ == "__main__":
    typer.run(main)
