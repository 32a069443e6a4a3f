"""
What a teacher's label of a reply is worth, before anything is trained on it.

    python -m benchmarks.reply_labels [--data FOLDER] [--generator MODEL] [--judge NAME=MODEL] [--json FILE] [--quick]

Dev contexts, each with the reply that a person gave, ten that people gave elsewhere, and some that the generator wrote.
`first`: how often a label puts the person's reply above all ten (chance: 9.1 %); `pairs`: above one of them (50 %).
`last`: how often it puts it below everything that the generator wrote, in which case distillation teaches that people
reply badly. Labels: the untouched retriever; `similarity` to the first 3, 5, ... texts of the generator; the
generator's `response`, `mi` and `pmi`; the same of the judges. `seconds` are for the labels alone, on this machine.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
from sentence_transformers import SentenceTransformer

from benchmarks.common import minilm, print_rows, read_rows, write_rows
from benchmarks.dialogues import spread
from benchmarks.g2r_systems import WORK, written_by
from benchmarks.judges import named_models
from demo.packaged import chitchat, smollm2
from haystack_distill.data.dialogues import Context, format_context, read_contexts
from haystack_distill.evaluation.quality import Quality
from haystack_distill.teachers.likelihood import LikelihoodTeacher
from haystack_distill.teachers.readers import load_reader
from haystack_distill.teachers.scores import Candidates, Teacher
from haystack_distill.teachers.similarity import SimilarityTeacher

RIVALS, HISTORY = 10, 4
COLUMNS = (
    ("data", "data", ""),
    ("label", "label", ""),
    ("n", "n", "d"),
    ("first", "first", ".3f"),
    ("low", "first_low", ".3f"),
    ("high", "first_high", ".3f"),
    ("pairs", "pairs", ".3f"),
    ("last", "last", ".3f"),
    ("seconds", "seconds", ".0f"),
)


Scores = Callable[[], list[np.ndarray]]
"""Gives the scores of each context's replies."""


@dataclass(frozen=True)
class Asked:
    """A context, the replies to label (the person's, ten others, what was written), and how many were written."""

    context: Context
    replies: list[str]
    written: list[str]

    def candidates(self, samples: int) -> Candidates:
        """As a teacher gets it, with the first texts of the generator as answers."""
        return Candidates("\n".join(self.context.turns), self.replies, self.written[:samples])


def main(
    data: Annotated[Path | None, typer.Option(help="A folder with dev.jsonl; default: chitchat-dataset.")] = None,
    json: Annotated[Path | None, typer.Option(help="Write the rows to this file.")] = None,
    quick: Annotated[bool, typer.Option(help="Very little of everything: shows that it runs.")] = False,
    generator: Annotated[str | None, typer.Option(help="Folder, hub name or GGUF file; default: SmolLM2.")] = None,
    judge: Annotated[list[str] | None, typer.Option(help="NAME=MODEL of a judge; may be repeated.")] = None,
    encoder: Annotated[str | None, typer.Option(help="A sentence-transformers folder; default: MiniLM.")] = None,
    dtype: Annotated[str | None, typer.Option(help="Of generator and judges: float32 or bfloat16.")] = None,
    contexts: Annotated[int, typer.Option(help="Contexts to label.")] = 500,
    samples: Annotated[int, typer.Option(help="Texts of the generator for each.")] = 5,
) -> None:
    """Print the table."""
    folder, name = data or chitchat(WORK), generator or smollm2()
    contexts, samples = (12, 3) if quick else (contexts, samples)
    rows = read_rows(json)
    done = {(row["data"], row["label"]) for row in rows}
    reader = load_reader(name, dtype=dtype)
    asked = questions(folder / "dev.jsonl", contexts, lambda some: written_by(reader, name, some, samples))
    model = SentenceTransformer(encoder or minilm(), device="cpu")
    labels: dict[str, Scores] = {"retriever": partial(nearness, model, asked)}
    labels |= {
        f"similarity to {count}": partial(scores_of, SimilarityTeacher(model), asked, count)
        for count in range(3, samples + 1, 2)
    }
    readers: dict[str, Callable[[], Any]] = {"": lambda: reader}
    readers |= {
        f"{whose} ": partial(load_reader, model, dtype=dtype) for whose, model in named_models(judge or []).items()
    }
    labels |= {
        f"{whose}{signal}": partial(likelihoods_of, load, signal, asked)
        for whose, load in readers.items()
        for signal in ("response", "mi", "pmi")
    }
    for label, scores in labels.items():
        if (folder.name, label) not in done:
            started = time.perf_counter()
            found = worth(scores())
            rows.append({"data": folder.name, "label": label, **found, "seconds": time.perf_counter() - started})
            write_rows(json, rows)
    print_rows(rows, COLUMNS, "How a label ranks what people replied")


def questions(file: Path, count: int, write: Callable[[list[Context]], dict[str, list[str]]]) -> list[Asked]:
    """Contexts with what is to be labelled; those that lack rivals or generated texts are left out."""
    some = spread(read_contexts(file, HISTORY), count)
    written, random = write(some), np.random.default_rng(0)
    everything = [one.response for one in some]
    asked = []
    for one in some:
        drawn = [everything[place] for place in random.permutation(len(some)) if everything[place] != one.response]
        rivals, texts = list(dict.fromkeys(drawn))[:RIVALS], written[one.id]
        if len(rivals) == RIVALS and len(set(texts)) == len(texts):
            asked.append(Asked(one, [one.response, *rivals, *texts], texts))
    return asked


def scores_of(teacher: Teacher, asked: Sequence[Asked], samples: int) -> list[np.ndarray]:
    """Scores of a teacher that knows some of the generator's texts."""
    return [one.scores for one in teacher.score([one.candidates(samples) for one in asked])]


def likelihoods_of(load: Callable[[], Any], signal: str, asked: Sequence[Asked]) -> list[np.ndarray]:
    """Likelihoods of a reader, which is loaded for them."""
    return scores_of(LikelihoodTeacher(load(), signal), asked, 0)


def nearness(model: SentenceTransformer, asked: Sequence[Asked]) -> list[np.ndarray]:
    """Cosines of a retriever."""
    contexts = model.encode([format_context(one.context.turns, HISTORY) for one in asked], normalize_embeddings=True)
    return [
        model.encode(one.replies, normalize_embeddings=True) @ vector
        for one, vector in zip(asked, contexts, strict=True)
    ]


def worth(scores: Sequence[np.ndarray]) -> dict[str, Any]:
    """How a label ranks the person's reply, which is the first of each row; see the top of this file."""
    human = np.array([row[0] for row in scores])
    rivals = np.array([row[1 : RIVALS + 1] for row in scores])
    generated = [row[RIVALS + 1 :] for row in scores]
    first = (human[:, None] > rivals).all(1).astype(float)
    interval = Quality({"first": first}, [str(number) for number in range(len(first))]).summary()["first"]
    return {
        "n": len(scores),
        "first": float(first.mean()),
        "first_low": interval["low"],
        "first_high": interval["high"],
        "pairs": float((human[:, None] > rivals).mean()),
        "last": float(np.mean([one < written.min() for one, written in zip(human, generated, strict=True)])),
    }


if __name__ == "__main__":
    typer.run(main)
