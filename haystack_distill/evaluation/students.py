"""Saved students beside the encoder that they were made from."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sentence_transformers import SentenceTransformer

from haystack_distill.data.beir import Qrels
from haystack_distill.data.index import IndexView
from haystack_distill.evaluation.comparison import Measured, System, measure_all, student_system, teacher_system
from haystack_distill.evaluation.held_out import judged_split
from haystack_distill.evaluation.proof import Evidence, Result, prove, read_figures
from haystack_distill.evaluation.recovery import StoreSearch
from haystack_distill.files.layout import MODULES
from haystack_distill.files.runs import running
from haystack_distill.students.bi_encoder import BiEncoder


@dataclass(frozen=True)
class Hybrid:
    """
    What query encoders are joined with.

    :param told: What it is, for people.
    :param measure: Encoders, the teacher first, and judged queries -> `alone` or a way of joining -> name -> what was
        measured.
    """

    told: str
    measure: Callable[[list[System], IndexView, dict[str, str], Qrels], Mapping[str, Mapping[str, Measured]]]


def evaluate_students(
    index: IndexView,
    teacher: BiEncoder,
    teacher_name: str,
    students: dict[str, str],
    queries: str,
    split: str,
    output: Path,
    seed: int = 0,
    hybrid: Hybrid | None = None,
    store: StoreSearch | None = None,
) -> dict[str, Any]:
    """
    What `RetrievalEvaluator` does: saved students, name -> folder, beside their teacher in a new folder.

    :param store: How the store of the index searches; None where it searches exactly, too.
    """
    with running(output):
        texts, qrels = judged_split(queries, split, index)
        teacher.check_belongs_to(index)
        systems = [teacher_system(teacher), *(_saved(name, Path(folder), index) for name, folder in students.items())]
        hybrids = hybrid.measure(systems, index, texts, qrels) if hybrid else {}
        facts = {
            "Teacher": teacher_name,
            **{f"Student {name}": _made(Path(folder)) for name, folder in students.items()},
            "Index": f"{len(index)} documents, {index.dim} dimensions, {index.similarity}, "
            f"fingerprint {index.fingerprint[:16]}",
            **({"Hybrid": hybrid.told} if hybrid else {}),
            "Judged by": f"judged {split} queries",
        }
        measured = measure_all(systems, index, texts, qrels)
        if store:
            measured = store.recovered(measured, index, [texts[query_id] for query_id in qrels], seed)
        evidence = Evidence(measured, index, texts, qrels, seed, hybrids=hybrids)
        advice = store.advice(measured) if store else None
        figures = evidence.figures() | ({"recovery_advice": advice} if advice else {})
        return prove(output, lambda: Result(evidence, figures, facts))


def _made(folder: Path) -> str:
    """How a saved student came to be, if its folder tells."""
    facts = read_figures(folder).get("facts")
    if not facts:
        return f"{folder}, not made by an alignment"
    told = (
        label for label in ("Trained", "Student", "Layers kept", "Trained on", "Loss", "Training") if label in facts
    )
    return f"{folder} ({'; '.join(f'{label.lower()}: {facts[label]}' for label in told)})"


def _saved(name: str, folder: Path, index: IndexView) -> System:
    if not (folder / MODULES).is_file():
        msg = f"The student {name!r} is not at {folder}: there is no sentence-transformers model ({MODULES})."
        raise FileNotFoundError(msg)
    student = SentenceTransformer(str(folder), local_files_only=True)
    if student.get_embedding_dimension() != index.dim:
        msg = (
            f"The student {name!r} makes vectors of {student.get_embedding_dimension()} dimensions and the index has "
            f"{index.dim}: it was made for another index."
        )
        raise ValueError(msg)
    return student_system(name, student, read_figures(folder).get("training_seconds"))
