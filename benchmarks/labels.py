"""
How good a teacher's label is, before anything is trained on it.

    python -m benchmarks.labels --data BEIR_FOLDER [--reader MODEL] [--split dev] [--json FILE] [--quick]

Questions whose gold passage is among the retriever's first 8: how often does each signal put it first, and how often
does the retriever itself? Answers come from `queries.jsonl` (`metadata.answers`); signals that need them are left out
where there are none. `heads` are chosen on train questions, whose right passage is the one that `question` puts first,
so no judgment is used. `reversed` is the first half of the questions with their passages in the opposite order: where
it differs, the signal is biased by position. `answered` is the papers' own check: how often what a causal reader
writes, given the first passage alone, holds a reference answer; beside it the same with the retriever's first passage.
A table that was stopped goes on when it is started again with the same `--json`.
"""

import hashlib
import json as json_lines
import re
import time
from contextlib import suppress
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
import typer
from scipy import stats

from benchmarks.common import CACHE, load_teacher, minilm, open_corpus, print_rows, read_rows, write_rows
from benchmarks.taught_reader import taught_reader
from demo.packaged import llama_cpp, smollm2
from haystack_distill.data.training_set import Row, TrainingSet, write_training_set
from haystack_distill.evaluation.quality import ranking, search
from haystack_distill.generation.asking import AskingGenerator, Said
from haystack_distill.generation.listwise import SIGNAL as LISTWISE
from haystack_distill.generation.listwise import ListwiseTeacher
from haystack_distill.generation.requests import Message
from haystack_distill.teachers.attention_signals import AttentionTeacher
from haystack_distill.teachers.causal import CausalReader
from haystack_distill.teachers.heads import select_heads
from haystack_distill.teachers.in_context import head_examples
from haystack_distill.teachers.labelling import label
from haystack_distill.teachers.likelihood import LikelihoodTeacher
from haystack_distill.teachers.prompt_encoding import MAX_PASSAGE_TOKENS
from haystack_distill.teachers.prompts import ANSWER, ANSWER_JOINT, UnscorableError
from haystack_distill.teachers.readers import load_reader
from haystack_distill.teachers.scores import ROWS_AT_ONCE, Candidates, Teacher
from haystack_distill.teachers.signals import LIKELIHOOD, SIGNALS

DEPTH = 8
HEAD_QUESTIONS = 32
ANSWER_TOKENS = 16
TAUGHT, TOGETHER = "-taught", "-together"
"""Suffixes of signals: read out of a reader that was taught answers; out of one prompt that holds all passages."""

JOINT = (f"dkrr{TOGETHER}", f"adist{TOGETHER}")
LEARNT = tuple(f"{one}{TAUGHT}" for one in ("dkrr", "adist", *JOINT))
COLUMNS = (
    ("data", "data", ""),
    ("split", "split", ""),
    ("reader", "reader", ""),
    ("signal", "signal", ""),
    ("n", "n", "d"),
    ("gold first", "first", "d"),
    ("%", "share", ".1f"),
    ("low", "low", ".1f"),
    ("high", "high", ".1f"),
    ("retriever first", "retriever_first", "d"),
    ("p", "p", ".3f"),
    ("answered", "answered", "d"),
    ("with retriever's", "retriever_answered", "d"),
    ("p", "p_answered", ".3f"),
    ("of the first half", "first_of_half", "d"),
    ("reversed", "first_reversed", "d"),
    ("s a question", "seconds", ".2f"),
)


def main(
    data: Annotated[Path, typer.Option(help="A BEIR folder.")],
    reader: Annotated[
        str | None, typer.Option(help="A model: folder, hub name or GGUF file; default: SmolLM2.")
    ] = None,
    json: Annotated[Path | None, typer.Option(help="Write the rows to this file.")] = None,
    split: Annotated[
        str, typer.Option(help="Whose questions; signals are chosen on train or dev, never on test.")
    ] = "dev",
    questions: Annotated[int, typer.Option(help="How many questions at most.")] = 200,
    signal: Annotated[
        list[str] | None, typer.Option(help="Only these signals; listwise, which needs a GGUF file, is run on demand.")
    ] = None,
    taught: Annotated[int, typer.Option(help="Also teach the reader answers of so many train questions.")] = 0,
    dtype: Annotated[str | None, typer.Option(help="Of the reader: float32 or bfloat16.")] = None,
    retriever: Annotated[str | None, typer.Option(help="A sentence-transformers folder; default: MiniLM.")] = None,
    quick: Annotated[bool, typer.Option(help="A dozen questions: shows that it runs.")] = False,
) -> None:
    """Print the table."""
    name = reader or smollm2()
    rows = read_rows(json)
    done = {(row["data"], row["split"], row["reader"], row["signal"]) for row in rows}
    asked = candidates(data, split, 12 if quick else questions, retriever)
    choice = candidates(data, "train", 10 if quick else HEAD_QUESTIONS, retriever, to_choose_heads=True)
    loaded = load_reader(name, dtype=dtype)
    answers = Answers(loaded) if isinstance(loaded, CausalReader) else None
    of_train = [one for one, _ in candidates(data, "train", taught, retriever, to_choose_heads=True)] if taught else []
    if not all(one.answers for one in of_train):
        msg = f"--taught needs answers, and {data} has none: leave it out."
        raise typer.BadParameter(msg)
    of_taught = (*JOINT, *LEARNT) if isinstance(loaded, CausalReader) else LEARNT[:2]
    for chosen in signal or [*signals_for(loaded, asked), *(of_taught if taught else ())]:
        if (data.name, split, Path(name).name, chosen) in done:
            continue
        if chosen == LISTWISE:
            teacher = served(name)
        elif chosen in LEARNT:
            folder = taught_reader(name, of_train, [one.query for one, _ in asked], together=TOGETHER in chosen)
            teacher = teacher_for(load_reader(str(folder), dtype=dtype), chosen.removesuffix(TAUGHT), [])
        else:
            teacher = teacher_for(loaded, chosen, [one for one, _ in choice])
        row = {**measured(teacher, asked, answers), "signal": chosen}
        rows.append({"data": data.name, "split": split, "reader": Path(name).name, **row})
        write_rows(json, rows)
        print_rows(rows[-1:], COLUMNS, "")
    print_rows(rows, COLUMNS, f"Gold passage first, of questions whose gold passage is among the first {DEPTH}")


class NamedReader:
    """
    A reader that is loaded when it is needed.

    :param name: Folder, hub name or GGUF file.
    :param dtype: `float32`, `bfloat16` or None for the default.
    :param passage_tokens: How much of a passage it reads.
    """

    def __init__(self, name: str, dtype: str | None = None, passage_tokens: int = MAX_PASSAGE_TOKENS) -> None:
        self.name, self.dtype, self.short, self.passage_tokens = name, dtype, Path(name).name, passage_tokens

    @cached_property
    def loaded(self) -> Any:
        """The reader."""
        return load_reader(self.name, dtype=self.dtype, max_passage_tokens=self.passage_tokens)

    def identity(self, signal: str) -> dict[str, Any]:
        """What scores of a signal depend on besides their rows."""
        one, reader = SIGNALS[signal], self.loaded
        prompt = one.prompt_for(reader.kind).fingerprint(reader.tokenizer)
        scores = {"signal": signal, "revision": one.revision, "prompt": prompt}
        return {"reader": self.short, "dtype": self.dtype, **scores, "passage_tokens": reader.max_passage_tokens}


def labelled(
    rows: list[Row], signal: str, reader: NamedReader, *, source: str, similarity: str = "cosine"
) -> tuple[TrainingSet, float]:
    """
    Label rows, or find the labels that an earlier run gave the same rows, however it ended.

    :param rows: The rows; the last of them serve to choose heads.
    :param signal: The teacher's signal.
    :param reader: What scores.
    :param source: Where the rows come from.
    :param similarity: Of the retriever that found their passages.
    :returns: The labelled set, and the seconds of the run that made it.
    """
    texts = [(row.query_id, row.query, row.answers, row.document_ids, row.documents) for row in rows]
    content = repr((texts, sorted(reader.identity(signal).items(), key=str), similarity))
    folder = CACHE / f"labels-{hashlib.sha256(content.encode()).hexdigest()[:24]}"
    if not folder.exists():
        write_training_set(folder, rows, source=source, similarity=similarity)
    seconds = folder / "seconds.txt"
    if not seconds.exists():
        some = [Candidates(row.query, row.documents, row.answers) for row in rows[-HEAD_QUESTIONS:]]
        scorer: Any = teacher_for(reader.loaded, signal, some, reader.short)
        at_once = getattr(scorer, "rows_at_once", ROWS_AT_ONCE)
        start = time.perf_counter()
        label(folder, scorer.identity, lambda: scorer, rows_at_once=at_once)
        seconds.write_text(str(time.perf_counter() - start), encoding="utf-8")
    return TrainingSet.open(folder), float(seconds.read_text(encoding="utf-8"))


def candidates(
    data: Path, split: str, count: int, retriever: str | None, *, to_choose_heads: bool = False
) -> list[tuple[Candidates, list[bool]]]:
    """
    Questions evenly drawn, with which of their passages are gold.

    Only such as have one, unless heads are chosen on them: that is done without judgments, and on train questions
    that are not in the table.
    """
    encoder = load_teacher(retriever or minilm())
    corpus, index = open_corpus(data, encoder)
    qrels = corpus.qrels[split]
    answers = read_answers(data / "queries.jsonl")
    ids = list(qrels)
    if split == "train":
        ids = ids[len(ids) // 2 :] if to_choose_heads else ids[: len(ids) // 2]
    ids = ids[:: max(1, len(ids) // (count if to_choose_heads else 2 * count))]
    run = search(index, ids, encoder.encode_queries([corpus.queries[one] for one in ids]), depth=DEPTH)
    found = []
    for query_id in ids:
        documents = ranking(run[query_id])
        gold = [document in qrels[query_id] for document in documents]
        if any(gold) or to_choose_heads:
            passages = [corpus.documents[document] for document in documents]
            found.append((Candidates(corpus.queries[query_id], passages, answers.get(query_id, [])), gold))
    return found[:count]


def read_answers(file: Path) -> dict[str, list[str]]:
    """Query id -> reference answers."""
    lines = (json_lines.loads(line) for line in file.read_text(encoding="utf-8").splitlines() if line.strip())
    return {str(line["_id"]): line.get("metadata", {}).get("answers", []) for line in lines}


def signals_for(reader: Any, asked: list[tuple[Candidates, list[bool]]]) -> list[str]:
    """All that the reader and the questions allow; `emdr2` of one answer ranks the passages as `pdist` does."""
    causal = isinstance(reader, CausalReader)
    signals = ["question", "pdist", "adist", "dkrr", *(("icr", "heads") if causal else ()), "loop"]
    if not all(row.answers for row, _ in asked):
        signals = [one for one in signals if not SIGNALS[one].needs_answers]
    return signals


def teacher_for(reader: Any, signal: str, choice: list[Candidates], name: str = "") -> Teacher:
    """The teacher of a signal; heads are chosen on pseudo-labelled questions."""
    if signal.endswith(TOGETHER):
        return AttentionTeacher(reader, signal.removesuffix(TOGETHER), ANSWER_JOINT, permutations=2, name=name)
    if SIGNALS[signal].reads == LIKELIHOOD:
        return LikelihoodTeacher(reader, signal, name=name)
    if signal != "heads":
        return AttentionTeacher(reader, signal, name=name)
    right = [int(one.scores.argmax()) for one in LikelihoodTeacher(reader, "question").score(choice)]
    heads = select_heads(list(head_examples(reader, choice, right)), model=name)
    return AttentionTeacher(reader, signal, heads=heads, name=name)


def served(gguf: str) -> Teacher:
    """The order that a chat model gives, asked of llama.cpp's server."""
    server = llama_cpp(gguf)

    def ask(messages: list[Message], seed: int) -> Said:
        chat = [{"role": role, "content": text} for role, text in messages]
        said = server.handle_chat_completions({"messages": chat, "max_tokens": 64, "temperature": 0.0, "seed": seed})
        return Said(said["choices"][0]["message"]["content"], usage=said["usage"])

    return ListwiseTeacher(AskingGenerator(ask, {"model": Path(gguf).name}, Path(gguf).name, at_once=1))


class Answers:
    """
    What a reader writes, greedily, given one passage; each question and passage is read once for all signals.

    :param reader: The reader.
    """

    def __init__(self, reader: CausalReader) -> None:
        self._reader, self._said = reader, dict[tuple[str, str], str]()

    def right(self, row: Candidates, place: int) -> bool:
        """Whether the answer to a question holds one of its reference answers."""
        key = (row.query, row.passages[place])
        if key not in self._said:
            self._said[key] = _plain(self._answer(*key))
        return any(_plain(answer).strip() and _plain(answer) in self._said[key] for answer in row.answers)

    def _answer(self, query: str, passage: str) -> str:
        ids = torch.tensor([self._reader.encode(ANSWER, query, [passage]).ids])
        with torch.inference_mode():
            written = self._reader.model.generate(ids, max_new_tokens=ANSWER_TOKENS, do_sample=False, pad_token_id=0)
        return str(self._reader.tokenizer.decode(written[0, ids.shape[1] :], skip_special_tokens=True))


def _plain(text: str) -> str:
    """Its words alone, each between spaces."""
    return " " + " ".join(re.findall(r"[^\W_]+", text.casefold())) + " "


def measured(
    teacher: Any, asked: list[tuple[Candidates, list[bool]]], answers: Answers | None = None
) -> dict[str, Any]:
    """How often the gold passage comes first, and what the first passage is worth to the reader."""
    chosen, both, skipped = [], [], 0
    start = time.perf_counter()
    for row, gold in asked:
        try:
            chosen.append((row, gold, int(teacher.score([row])[0].scores.argmax())))
        except UnscorableError:
            skipped += 1
    seconds = (time.perf_counter() - start) / len(asked)
    first, retriever = [gold[place] for _, gold, place in chosen], [gold[0] for _, gold, _ in chosen]
    if teacher.signal in {"icr", "heads", "loop", LISTWISE}:
        for row, gold, place in chosen[: len(asked) // 2]:
            turned = Candidates(row.query, row.passages[::-1], row.answers)
            with suppress(UnscorableError):
                both.append((gold[place], gold[::-1][int(teacher.score([turned])[0].scores.argmax())]))
    interval = stats.binomtest(sum(first), len(first)).proportion_ci(method="wilson")
    read = [(row, place) for row, _, place in chosen if row.answers] if answers else []
    answered = [answers.right(row, place) for row, place in read] if answers else []
    with_retriever = [answers.right(row, 0) for row, _ in read] if answers else []
    return {
        "signal": teacher.signal,
        "first": sum(first),
        "n": len(first),
        "skipped": skipped,
        "retriever_first": sum(retriever),
        "share": 100 * float(np.mean(first)),
        "low": 100 * interval.low,
        "high": 100 * interval.high,
        "p": sign_test(first, retriever),
        "answered": sum(answered) if read else None,
        "retriever_answered": sum(with_retriever) if read else None,
        "p_answered": sign_test(answered, with_retriever) if read else None,
        "first_of_half": sum(forwards for forwards, _ in both) if both else None,
        "first_reversed": sum(backwards for _, backwards in both) if both else None,
        "seconds": seconds,
    }


def sign_test(first: list[bool], second: list[bool]) -> float:
    """Two-sided, of two systems on the same questions."""
    won = sum(one and not other for one, other in zip(first, second, strict=True))
    lost = sum(other and not one for one, other in zip(first, second, strict=True))
    return float(stats.binomtest(won, won + lost).pvalue) if won + lost else 1.0


if __name__ == "__main__":
    typer.run(main)
