"""KALE: from an index and the encoder that made it to a smaller query encoder for the same index."""

import json
import logging
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from sentence_transformers import SentenceTransformer

from haystack_distill.align.expected import expected_minutes
from haystack_distill.align.layers import best_layers, make_student, named_layers
from haystack_distill.align.ridge import Solved, solve_table
from haystack_distill.align.training import TrainingSettings, texts_within_budget, train
from haystack_distill.data.beir import Qrels, check_judged
from haystack_distill.data.index import IndexView, stored_vectors
from haystack_distill.data.own_passages import toward_own_passages
from haystack_distill.data.sentences import sample_texts
from haystack_distill.evaluation.dev_set import DevSet, judged_by_teacher, make_dev_set
from haystack_distill.evaluation.evaluators import IndexRetrievalEvaluator
from haystack_distill.evaluation.held_out import Asked, Queries, split_index_text, unseen
from haystack_distill.files.runs import claim, fingerprint
from haystack_distill.losses.alignment import AlignmentLoss
from haystack_distill.losses.table import ALIGNMENT
from haystack_distill.losses.weights import checked_weights
from haystack_distill.students.bi_encoder import BiEncoder
from haystack_distill.students.cutting import find_stack
from haystack_distill.training.trainer import METRIC, TrainingSummary

logger = logging.getLogger(__name__)

DEFAULT_LOSS = {"mse": 1.0, "index_ranking": 2.0}

FITS = ("trained", "ridge")
"""How a student is fitted: step by step, or, of token tables alone, in closed form."""


@dataclass(frozen=True)
class KaleSettings:
    """
    What is wanted of the student.

    :param layers: How many layers stay; 0 asks for a token table.
    :param keep: The numbers of the layers that stay, or `kale` for the paper's; None searches for the best.
    :param temperature: Divides the vectors in the `kale` loss.
    :param folded: Whether dropped lower layers are folded into the token embeddings.
    :param fit: Of `FITS`; `ridge` solves for a token table (`align.ridge`).
    :param index_text: Whether text of the index is aligned on, besides given queries.
    :param passage_weight: How far the target of a sentence of the index is moved from the teacher's vector to that of
        the passage it stands in: from 0, the teacher alone, to below 1.
    :param max_texts: The most texts to align on.
    :raises ValueError: If a loss or fit is not known, a weight or the temperature is out of bounds, or layers are asked
        for that can't be had in closed form.
    """

    layers: int = 2
    keep: tuple[int, ...] | str | None = None
    loss: Mapping[str, float] = field(default_factory=lambda: dict(DEFAULT_LOSS))
    temperature: float = 1.0
    folded: bool = True
    index_text: bool = True
    passage_weight: float = 0.2
    max_texts: int = 50_000
    fit: str = "trained"
    training: TrainingSettings = field(default_factory=TrainingSettings)

    def __post_init__(self) -> None:
        """Check what can be checked without the encoder; weights from YAML may still be strings."""
        object.__setattr__(self, "loss", checked_weights(self.loss, ALIGNMENT))
        if not self.temperature > 0:
            msg = f"temperature must be above 0, not {self.temperature}."
            raise ValueError(msg)
        if not 0 <= self.passage_weight < 1:
            msg = f"passage_weight must be at least 0 and below 1, not {self.passage_weight}."
            raise ValueError(msg)
        if self.fit not in FITS:
            msg = f"fit={self.fit!r} is not one of {', '.join(map(repr, FITS))}."
            raise ValueError(msg)
        if self.fit == "ridge" and (self.layers or self.keep is not None):
            msg = f"fit={self.fit!r} solves for a token table: ask for layers=0 without keep, or leave fit out."
            raise ValueError(msg)


@dataclass(frozen=True)
class Aligned:
    """
    A trained student and how it came to be.

    :param cut_only: The same cut without folding and training.
    :param kept_layers: The numbers of the layers that stayed, empty for a token table.
    :param searched: What the search measured: layers -> dev nDCG@10.
    :param solved: What the closed form found; None without one.
    :param texts: How many texts it was trained on, by kind.
    :param stays_untrained: Whether training made it worse on dev, so that the student is the untrained one.
    :param dev: What it was selected on, for those who export it.
    """

    student: SentenceTransformer
    cut_only: SentenceTransformer
    kept_layers: tuple[int, ...]
    searched: dict[str, float]
    solved: Solved | None
    texts: dict[str, int]
    training: TrainingSummary
    before: float
    stays_untrained: bool
    dev: DevSet


class Material(NamedTuple):
    """
    What a student is made with.

    :param texts: Texts to train on, given queries first.
    :param queries: How many of them are given queries.
    :param sentences: Text of the index, to search layers and to fold with.
    :param places: Sentence -> the numbers of its documents.
    :param dev: Id -> text, to select on.
    :param dev_qrels: Their judgments, where people made any.
    :param left_out: How many texts of each kind are not learnt or not selected on, because dev or test asks the same.
    """

    texts: list[str]
    queries: int
    sentences: list[str]
    places: dict[str, list[int]]
    dev: dict[str, str]
    dev_qrels: Qrels
    left_out: dict[str, int]
    run: dict[str, Any]


def align(
    index: IndexView,
    teacher: BiEncoder,
    settings: KaleSettings,
    workspace: Path,
    queries: Queries | None = None,
    *,
    test: Iterable[str],
    progress: bool = True,
) -> Aligned:
    """
    Cut the teacher's query encoder and align it with the vectors it makes and with the passages of the index.

    :param workspace: Holds what a killed run needs to go on: the teacher's vectors and the checkpoints.
    :param queries: Given queries, or None to align on the index alone.
    :param test: What the student will be measured on: nothing of it is learnt or selected on.
    :raises ValueError: If encoder and index don't belong together, there is nothing to align on, or the workspace
        holds a run with other settings.
    """
    material = material_of(index, teacher, settings, queries or Queries(), test)
    return train_on(index, teacher, settings, workspace, material, progress)


def material_of(
    index: IndexView, teacher: BiEncoder, settings: KaleSettings, given: Queries, test: Iterable[str]
) -> Material:
    """
    Choose what is learnt and what is selected on, and check all that can be checked before the work begins.

    :raises ValueError: See `align`.
    """
    named_layers(settings.layers, settings.keep, len(find_stack(teacher.model)))
    check_judged(given.dev_qrels, index.ids, "The dev split of the queries")
    teacher.check_belongs_to(index)
    test = list(test)
    given = given.without(test)
    seed = settings.training.seed
    everything = split_index_text(index, seed)
    index_text = everything.without(Asked(test))
    dev = given.dev or index_text.dev
    sentences = unseen(index_text.rest, dev.values())
    # Without index text it still serves the layer search, the folding and, where no queries are given, dev.
    texts = sample_texts(given.train, sentences if settings.index_text else [], settings.max_texts, seed)
    if len(texts) < 2 or len(dev) < 2:
        msg = (
            f"There is too little to align on: {len(texts)} texts and {len(dev)} dev queries; give queries or longer "
            "documents."
        )
        raise ValueError(msg)
    left_out = {
        "train": given.left_out["train"],
        "dev": given.left_out["dev"] if given.dev else len(everything.dev) - len(index_text.dev),
        "index_texts": len(everything.rest) - len(sentences) if settings.index_text else 0,
    }
    run = {
        "settings": settings,
        "teacher": _named(teacher),
        "index": index.fingerprint,
        "texts": fingerprint([texts, dev, given.dev_qrels]),
    }
    queries = min(len(set(given.train)), len(texts))
    return Material(texts, queries, sentences or texts, index_text.places, dev, given.dev_qrels, left_out, run)


def train_on(
    index: IndexView, teacher: BiEncoder, settings: KaleSettings, workspace: Path, material: Material, progress: bool
) -> Aligned:
    """Cut and train a student on what was chosen for it, see `align`."""
    checkpoints = workspace / "checkpoints"
    claim(workspace, material.run, checkpoints.glob("*"))
    logger.info(
        "Aligning on %d texts takes about %d minutes here.", len(material.texts), _minutes(teacher, settings, material)
    )
    first = judged_by_teacher(teacher, index, material.dev)
    qrels = material.dev_qrels or first
    evaluator = IndexRetrievalEvaluator(material.dev, qrels, index)
    kept = named_layers(settings.layers, settings.keep, len(find_stack(teacher.model)))
    searched: dict[str, float] = {}
    if kept is None:
        file = workspace / "layers.json"
        kept, searched = best_layers(file, teacher, settings.layers, evaluator, material.sentences, progress)
    student, cut_only = make_student(teacher, kept, material.sentences, folded=settings.folded)
    texts = _affordable(material, student, settings.training)
    vectors = _targets(index, teacher, settings, workspace, material, texts, progress)
    loss = AlignmentLoss(
        student,
        settings.loss,
        index.ranking_vectors,
        teacher_norm=float(np.linalg.norm(vectors, axis=1).mean()),
        temperature=settings.temperature,
        seed=settings.training.seed,
    )
    untrained = evaluator(student)[METRIC]
    solved = solve_table(student, texts, vectors, evaluator) if settings.fit == "ridge" else None
    if solved:
        training = TrainingSummary(solved.seconds, 0)
    else:
        training = train(student, texts, vectors, loss, evaluator, checkpoints, settings.training, progress=progress)
    trained = max((entry["dev_ndcg@10"] for entry in training.history), default=untrained)
    stays_untrained = trained < untrained
    if stays_untrained:
        logger.info(
            "Training made the student worse on dev (nDCG@10 %.4f, before %.4f), so it stays as it was cut and folded: "
            "few texts teach little. More text in the index, queries, or a lower learning rate may help.",
            trained,
            untrained,
        )
        student, _ = make_student(teacher, kept, material.sentences, folded=settings.folded)
    dev = make_dev_set(index, material.dev, qrels, first)
    queries = min(material.queries, len(texts))
    counts = {"queries": queries, "index_texts": len(texts) - queries}
    return Aligned(student, cut_only, kept, searched, solved, counts, training, untrained, stays_untrained, dev)


def _minutes(teacher: BiEncoder, settings: KaleSettings, material: Material) -> int:
    layers = len(settings.keep) if isinstance(settings.keep, tuple) else settings.layers
    epochs, solved = settings.training.epochs, settings.fit == "ridge"
    texts = material.texts
    return max(1, round(expected_minutes(teacher, texts, len(texts), layers, epochs=epochs, solved=solved)))


def _affordable(material: Material, student: SentenceTransformer, training: TrainingSettings) -> list[str]:
    """The texts that training gets to: the teacher, which is slower than any student, need not read the others."""
    limit = texts_within_budget(student, material.texts, training)
    given, sentences = material.texts[: material.queries], material.texts[material.queries :]
    return sample_texts(given, sentences, limit, seed=training.seed)


def _targets(
    index: IndexView,
    teacher: BiEncoder,
    settings: KaleSettings,
    workspace: Path,
    material: Material,
    texts: list[str],
    progress: bool,
) -> np.ndarray:
    """What the student should make of texts; the teacher reads them once for a run and its continuations."""
    vectors = stored_vectors(
        workspace / "teacher_vectors.npy",
        [index.fingerprint, json.dumps(_named(teacher)), *texts],
        lambda: teacher.encode_targets(texts, progress=progress),
    )
    return toward_own_passages(vectors, texts, material.places, index, settings.passage_weight)


def _named(teacher: BiEncoder) -> dict[str, Any]:
    return {"query_prefix": teacher.query_prefix, "normalize": teacher.normalize, "dim": teacher.dim}
