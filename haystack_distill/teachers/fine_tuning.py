"""
A reader is taught the answers of a training set, so that it labels better in the next round.

DKRR trains its reader before each round on what the retriever finds (arXiv 2012.04584, section 3.2), and attention of a
reader that was not fine-tuned for the task is a poor teacher (arXiv 2402.11794). The prompts are those that score
(`teachers/prompts.py`), so what is trained is what is asked later.
"""

import logging
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from transformers import PreTrainedModel

from haystack_distill.data.training_set import Row, TrainingSet
from haystack_distill.evaluation.held_out import hold_out, tenth
from haystack_distill.files.folders import published, write_json
from haystack_distill.files.layout import versions
from haystack_distill.files.processes import process_number, wait_for_all
from haystack_distill.files.runs import claim, fingerprint, running
from haystack_distill.files.shapes import read_json
from haystack_distill.teachers.answers import AnswerSettings, train_reader
from haystack_distill.teachers.causal import CausalReader
from haystack_distill.teachers.fusion_in_decoder import FusionReader
from haystack_distill.teachers.prompts import Prompt, UnscorableError
from haystack_distill.teachers.readers import load_reader
from haystack_distill.teachers.signals import SIGNALS, signal_named
from haystack_distill.training.adapters import check_lora
from haystack_distill.training.trainer import TrainingSummary

logger = logging.getLogger(__name__)

HELD_OUT_MOST = 200
"""A tenth of the questions is held out, and at most so many."""

PROVENANCE = "fine_tuning.json"


@dataclass(frozen=True)
class FineTuningSettings:
    """
    What a reader is taught.

    :param signal: What the reader will be asked for when it labels; that prompt is trained. Where it holds one passage
        (`pdist`, `emdr2`, and `dkrr`, `adist` of a causal model), the reader sees each passage that holds an answer;
        where it holds all (`loop`, and every signal of a Fusion-in-Decoder reader), it sees all of them.
    :param passages: How many passages of each question are looked at, in the retriever's order.
    """

    signal: str = "pdist"
    passages: int = 8
    training: AnswerSettings = field(default_factory=AnswerSettings)


@dataclass
class Lessons:
    """Prompts to train on and held-out ones, how many questions each has, and why rows are not used -> how many."""

    train: list[Any]
    held_out: list[Any]
    questions: tuple[int, int]
    left_out: dict[str, int]

    @property
    def fingerprint(self) -> str:
        """Changes when a token of a prompt does."""
        content = [[_tokens(prompt) for prompt in part] for part in (self.train, self.held_out)]
        return fingerprint(content, 16)


def fine_tune_reader(
    training_set: str | Path,
    model: str,
    output: str | Path,
    settings: FineTuningSettings | None = None,
    *,
    device: str | None = None,
    progress: bool = True,
) -> dict[str, Any]:
    """
    What `ReaderFineTuner` does: teach a reader answers, and write it to a new folder that `load_reader` reads.

    :returns: The content of `fine_tuning.json`: `held_out` (`before` and `after`: mean log-likelihood of the answers'
        tokens), `better`, `rows`, `history`, `training_seconds`, and what was asked for.
    """
    settings = settings or FineTuningSettings()
    with running(output) as workspace:
        check_lora(settings.training.lora_rank)
        rows = TrainingSet.open(training_set)
        reader = load_reader(model, dtype="float32", device=device, batch_size=settings.training.batch_size)
        check_trainable(reader.model, model)
        lessons = lessons_of(reader, list(rows), settings, str(training_set))
        checkpoints = workspace / "checkpoints"
        run = {"model": model, "settings": asdict(settings), "lessons": lessons.fingerprint}
        claim(workspace, run, checkpoints.glob("*"))
        done = _figures_of(Path(output))
        if done.get("made_of") == fingerprint(run):  # killed after its output had appeared
            return done
        before = mean_log_likelihood(reader, lessons.held_out)
        summary = train_reader(
            reader, lessons.train, lessons.held_out, checkpoints, settings.training, progress=progress
        )
        if not process_number():
            _write(Path(output), reader, lessons, run, before, summary, str(training_set))
        wait_for_all()
        return _figures_of(Path(output))


def _write(
    output: Path,
    reader: CausalReader | FusionReader,
    lessons: Lessons,
    run: dict[str, Any],
    before: float,
    summary: TrainingSummary,
    source: str,
) -> None:
    """Write a taught reader, with what is known of it."""
    after = mean_log_likelihood(reader, lessons.held_out)
    if after <= before:
        logger.warning(
            "Held-out answers did not become likelier (%.4f before, %.4f after, a token): label with %s as before.",
            before,
            after,
            run["model"],
        )
    figures = {
        "model": run["model"],
        "training_set": source,
        "settings": run["settings"],
        "held_out": {"before": before, "after": after, "questions": lessons.questions[1]},
        "better": after > before,
        "rows": {"trained_on": lessons.questions[0], "prompts": len(lessons.train), **lessons.left_out},
        "history": summary.history,
        "training_seconds": summary.seconds,
        "versions": versions(),
        "made_of": fingerprint(run),
    }
    with published(output) as folder:
        reader.model.save_pretrained(folder)
        reader.tokenizer.save_pretrained(folder)
        _check_saved(folder, reader, lessons.held_out)
        write_json(folder / PROVENANCE, figures)


def _figures_of(output: Path) -> dict[str, Any]:
    file = output / PROVENANCE
    figures: dict[str, Any] = read_json(file, dict[str, Any], "name another output.") if file.is_file() else {}
    return figures


def check_trainable(model: PreTrainedModel, name: str) -> None:
    """Refuse, with a ValueError, weights that are packed into few bits; those of a GGUF file are unpacked by then."""
    packed = getattr(model.config, "quantization_config", None)
    if packed is not None:
        kind = packed.get("quant_method") if isinstance(packed, dict) else getattr(packed, "quant_method", None)
        msg = (
            f"The weights of {name} are quantised ({getattr(kind, 'value', kind)}) and can't be trained: name the "
            "full-precision model that they were made from, or a GGUF file of it."
        )
        raise ValueError(msg)


def lessons_of(
    reader: CausalReader | FusionReader, rows: Sequence[Row], settings: FineTuningSettings, source: str
) -> Lessons:
    """
    Turn the rows of a training set into prompts with answers.

    Where a prompt holds one passage, only passages in which an answer stands are taken (distant supervision, as in DPR,
    arXiv 2004.04906): on any other the reader would learn to answer without reading.

    :raises ValueError: If the signal asks for no answer, or fewer than two questions can be used.
    """
    signal = signal_named(settings.signal)
    if not signal.asks_for_answer:
        suitable = ", ".join(one.name for one in SIGNALS.values() if one.asks_for_answer)
        msg = f"signal={settings.signal!r} asks for no answer, so there is nothing to teach: choose one of {suitable}."
        raise ValueError(msg)
    prompt = signal.prompt_for(reader.kind)
    usable: list[list[Any]] = []
    left_out: Counter[str] = Counter(without_answers=0, without_answer_in_passages=0, unusable=0)
    for row in rows:
        lessons = _prompts(reader, prompt, row, settings.passages)
        if isinstance(lessons, str):
            left_out[lessons] += 1
        else:
            usable.append(lessons)
    if len(usable) < 2:
        raise ValueError(_too_few(len(usable), len(rows), dict(left_out), source))
    if sum(left_out.values()):
        logger.warning("%d of %d rows are left out: %s.", sum(left_out.values()), len(rows), _listed(left_out))
    count = max(1, tenth(len(usable), most=HELD_OUT_MOST))
    held_out, train = hold_out(usable, count, settings.training.seed)
    return Lessons(
        [prompt for of_row in train for prompt in of_row],
        [prompt for of_row in held_out for prompt in of_row],
        (len(train), len(held_out)),
        dict(left_out),
    )


def mean_log_likelihood(reader: CausalReader | FusionReader, prompts: Sequence[Any]) -> float:
    """The mean log-likelihood of the answers' tokens: of each prompt, as `pdist` has it, then over the prompts."""
    return float(np.mean([values.mean() for _, values in reader.log_likelihoods(prompts)]))


def _prompts(reader: Any, prompt: Prompt, row: Row, most: int) -> list[Any] | str:
    """The prompts of a row, or why there are none."""
    answers = [answer for answer in row.answers if answer.strip()]
    passages = [text for text in row.documents[:most] if text.strip()]
    if not answers:
        return "without_answers"
    try:
        if isinstance(reader, FusionReader) or "passages" in prompt.places:
            return [reader.encode(prompt, row.query, passages, answers[0], ended=True)] if passages else "unusable"
        held = [(text, answer) for text in passages for answer in [a for a in answers if holds(text, a)][:1]]
        lessons = [reader.encode(prompt, row.query, [text], answer, ended=True) for text, answer in held]
    except UnscorableError as error:
        logger.info("The query %r is left out: %s", row.query_id, error)
        return "unusable"
    return lessons or "without_answer_in_passages"


def holds(passage: str, answer: str) -> bool:
    """Whether an answer stands in a passage, whatever the case and the spaces."""
    return " ".join(answer.lower().split()) in " ".join(passage.lower().split())


def _too_few(usable: int, rows: int, left_out: dict[str, int], source: str) -> str:
    if left_out["without_answers"] == rows:
        return (
            f"{source} has no answers, and a reader is trained on answers: give queries with `answers`, or label with "
            "the signal 'question', which needs neither answers nor training."
        )
    way_out = (
        "Take signal='loop', where all passages stand in one prompt."
        if left_out["without_answer_in_passages"]
        else "Give more questions with answers."
    )
    why = f"Of the {rows} rows of {source} {usable} can be trained on, and two are needed ({_listed(left_out)})."
    return f"{why} {way_out}"


def _listed(left_out: dict[str, int]) -> str:
    return ", ".join(f"{count} {reason.replace('_', ' ')}" for reason, count in left_out.items() if count)


def _tokens(prompt: Any) -> list[Any]:
    if hasattr(prompt, "inputs"):
        return [[encoded.ids for encoded in prompt.inputs], list(prompt.target)]
    return [prompt.ids, prompt.target().tolist()]


def _check_saved(folder: Path, reader: CausalReader | FusionReader, prompts: Sequence[Any]) -> None:
    """What is loaded must be what was trained."""
    loaded = load_reader(str(folder), dtype="float32", device=str(reader.model.device), batch_size=reader.batch_size)
    some = prompts[:4]
    expected, read = (mean_log_likelihood(kept, some) for kept in (reader, loaded))
    if not np.isclose(expected, read, rtol=1e-3, atol=1e-4):
        msg = (
            f"The reader can't be saved faithfully: the mean log-likelihood of answers is {expected:.4f}, and when it "
            f"is loaded again {read:.4f}. save_pretrained of {type(reader.model).__name__} loses something; the "
            "checkpoints are kept."
        )
        raise ValueError(msg)
