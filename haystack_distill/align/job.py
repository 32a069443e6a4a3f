"""KALE: from an index and the encoder that made it to a smaller query encoder for the same index."""

import json
import logging
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from sentence_transformers import SentenceTransformer

from haystack_distill.align.expected import expected_minutes
from haystack_distill.align.layers import best_layers, make_student
from haystack_distill.align.mapping import map_pairs, solve_map
from haystack_distill.align.ridge import Solved, solve_table
from haystack_distill.align.settings import KaleSettings
from haystack_distill.align.training import TrainingSettings, texts_within_budget, train
from haystack_distill.align.update import Earlier, index_text_of
from haystack_distill.data.beir import Qrels, check_judged
from haystack_distill.data.index import IndexView, stored_vectors
from haystack_distill.data.own_passages import toward_own_passages
from haystack_distill.data.sentences import sample_texts
from haystack_distill.evaluation.dev_set import DevSet, judged_by_teacher, make_dev_set
from haystack_distill.evaluation.evaluators import IndexRetrievalEvaluator
from haystack_distill.evaluation.held_out import Asked, Queries, unseen
from haystack_distill.files.processes import first_process_first
from haystack_distill.files.runs import claim, fingerprint
from haystack_distill.losses.alignment import AlignmentLoss
from haystack_distill.students.bi_encoder import BiEncoder
from haystack_distill.students.cutting import find_stack
from haystack_distill.students.mapped import with_map
from haystack_distill.training.trainer import METRIC, TrainingSummary

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Aligned:
    """
    A trained student and how it came to be.

    :param cut_only: The same cut without folding and training; None of another encoder, which is not cut.
    :param kept_layers: The numbers of the layers that stayed, empty for a token table or another encoder.
    :param searched: What the search measured: layers -> dev nDCG@10.
    :param solved: What the closed form found; None without one.
    :param texts: How many texts it was trained on, by kind.
    :param stays_untrained: Whether training made it worse on dev, so that the student is the untrained one.
    :param dev: What it was selected on, for those who export it.
    """

    student: SentenceTransformer
    cut_only: SentenceTransformer | None
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
    :param general: Those among them that are neither queries nor text of the index.
    :param sentences: Text of the index, to search layers and to fold with.
    :param known: Text of the index of which a table that is updated should make what it does.
    :param places: Sentence -> the numbers of its documents.
    :param dev: Id -> text, to select on.
    :param dev_qrels: Their judgments, where people made any.
    :param left_out: How many texts of each kind are not learnt or not selected on, because dev or test asks the same.
    """

    texts: list[str]
    queries: int
    general: frozenset[str]
    sentences: list[str]
    known: list[str]
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
    another: BiEncoder | None = None,
    earlier: Earlier | None = None,
    progress: bool = True,
) -> Aligned:
    """
    Cut the teacher's query encoder and align it with the vectors it makes and with the passages of the index.

    :param workspace: Holds what a killed run needs to go on: the teacher's vectors and the checkpoints.
    :param queries: Given queries, or None to align on the index alone.
    :param test: What the student will be measured on: nothing of it is learnt or selected on.
    :param another: The encoder that `settings.student` names.
    :param earlier: The student that `settings.update` names.
    :raises ValueError: If encoder and index don't belong together, there is nothing to align on, or the workspace
        holds a run with other settings.
    """
    material = material_of(index, teacher, settings, queries or Queries(), test, earlier)
    return train_on(index, teacher, settings, workspace, material, progress, another, earlier)


def material_of(
    index: IndexView,
    teacher: BiEncoder,
    settings: KaleSettings,
    given: Queries,
    test: Iterable[str],
    earlier: Earlier | None = None,
) -> Material:
    """
    Choose what is learnt and what is selected on, and check all that can be checked before the work begins.

    :raises ValueError: See `align`.
    """
    settings.kept(teacher)
    check_judged(given.dev_qrels, index.ids, "The dev split of the queries")
    teacher.check_belongs_to(index)
    test = list(test)
    given = given.without(test)
    seed = settings.training.seed
    everything, known = index_text_of(index, seed, earlier)
    asked = Asked(test)
    index_text, known = everything.without(asked), [text for text in known if text not in asked]
    dev = given.dev or index_text.dev
    sentences = unseen(index_text.rest, dev.values())
    own = set(sentences)
    general = [text for text in unseen(given.text, dev.values()) if not (text in own or text in asked)]
    # Without index text it still serves the layer search, the folding and, where no queries are given, dev.
    own_text = sentences if settings.index_text else []
    texts = sample_texts(given.train, own_text, general, limit=settings.max_texts, seed=seed)
    if len(texts) < 2 or len(dev) < 2:
        msg = (
            f"There is too little to align on: {len(texts)} texts and {len(dev)} dev queries; give queries or longer "
            "documents."
        )
        raise ValueError(msg)
    if earlier:
        known = sample_texts(known, limit=settings.max_texts if earlier.is_table else len(texts), seed=seed)
        texts, known = (texts, known) if earlier.is_table else (texts + known, [])
    left_out = {
        "train": given.left_out["train"],
        "dev": given.left_out["dev"] if given.dev else len(everything.dev) - len(index_text.dev),
        "index_texts": len(everything.rest) - len(sentences) if settings.index_text else 0,
        "general_texts": sum(text not in own for text in given.text) - len(general),
    }
    run = {
        "settings": settings,
        "teacher": _named(teacher),
        "index": index.fingerprint,
        "texts": fingerprint([texts, dev, given.dev_qrels]),
        **({"update": earlier.made_of} if earlier else {}),
    }
    queries = min(len(set(given.train)), len(texts))
    places = index_text.places
    of_general = frozenset(general)
    return Material(texts, queries, of_general, sentences or texts, known, places, dev, given.dev_qrels, left_out, run)


class Begun(NamedTuple):
    """A student before it learns: see `Aligned`."""

    student: SentenceTransformer
    cut_only: SentenceTransformer | None
    kept_layers: tuple[int, ...]
    searched: dict[str, float]


def train_on(
    index: IndexView,
    teacher: BiEncoder,
    settings: KaleSettings,
    workspace: Path,
    material: Material,
    progress: bool,
    another: BiEncoder | None = None,
    earlier: Earlier | None = None,
) -> Aligned:
    """Make a student and train it on what was chosen for it, see `align`."""
    checkpoints = workspace / "checkpoints"
    claim(workspace, material.run, checkpoints.glob("*"))
    solving = settings.fit == "ridge" or (earlier is not None and earlier.is_table)
    minutes = _minutes(teacher, settings, material, another, earlier, solving)
    logger.info("Aligning on %d texts takes about %d minutes here.", len(material.texts), minutes)
    first = judged_by_teacher(teacher, index, material.dev)
    qrels = material.dev_qrels or first
    evaluator = IndexRetrievalEvaluator(material.dev, qrels, index)
    with first_process_first(cpu=teacher.model.device.type == "cpu"):  # the others find layers and vectors there
        if another:
            begun = Begun(with_map(another, teacher), None, (), {})
        elif earlier:
            begun = Begun(earlier.copied(str(teacher.model.device)), None, earlier.kept_layers, {})
        else:
            begun = _cut(teacher, settings, workspace, material, evaluator, progress)
        student = begun.student
        texts = material.texts if solving else _affordable(material, student, settings.training)
        vectors = _targets(index, teacher, settings, workspace, material, texts, progress)
        solved = None
        if another:
            pairs = map_pairs(another, index, texts, vectors, workspace, progress)
            solved = solve_map(student, another, *pairs, evaluator)
    untrained = evaluator(student)[METRIC]
    if solving:
        solved = solved or solve_table(student, texts, vectors, evaluator, material.known)
        training = TrainingSummary(solved.seconds, 0)
    else:
        before = {name: weight.clone() for name, weight in student.state_dict().items()}
        loss = _loss(student, settings, index, vectors)
        training = train(student, texts, vectors, loss, evaluator, checkpoints, settings.training, progress=progress)
    trained = max((entry["dev_ndcg@10"] for entry in training.history), default=untrained)
    stays_untrained = trained < untrained
    if stays_untrained:
        logger.info(
            "Training made the student worse on dev (nDCG@10 %.4f, before %.4f), so it stays as it was before: "
            "few texts teach little. More text in the index, queries, or a lower learning rate may help.",
            trained,
            untrained,
        )
        student.load_state_dict(before)
    dev = make_dev_set(index, material.dev, qrels, first)
    queries = min(material.queries, len(texts))
    general = sum(text in material.general for text in texts[queries:])
    counts = {"queries": queries, "index_texts": len(texts) - queries - general, "general_texts": general}
    return Aligned(
        **begun._asdict(),
        solved=solved,
        texts=counts,
        training=training,
        before=untrained,
        stays_untrained=stays_untrained,
        dev=dev,
    )


def _cut(
    teacher: BiEncoder,
    settings: KaleSettings,
    workspace: Path,
    material: Material,
    evaluator: IndexRetrievalEvaluator,
    progress: bool,
) -> Begun:
    """Cut the teacher, at the best layers if none are named."""
    kept = settings.kept(teacher)
    searched: dict[str, float] = {}
    if kept is None:
        file, count = workspace / "layers.json", settings.layers or 0
        kept, searched = best_layers(file, teacher, count, evaluator, material.sentences, progress)
    student, cut_only = make_student(teacher, kept, material.sentences, folded=settings.folded)
    return Begun(student, cut_only, kept, searched)


def _loss(student: SentenceTransformer, settings: KaleSettings, index: IndexView, vectors: np.ndarray) -> AlignmentLoss:
    return AlignmentLoss(
        student,
        settings.loss,
        index.ranking_vectors,
        teacher_norm=float(np.linalg.norm(vectors, axis=1).mean()),
        temperature=settings.temperature,
        seed=settings.training.seed,
    )


def _minutes(
    teacher: BiEncoder,
    settings: KaleSettings,
    material: Material,
    another: BiEncoder | None,
    earlier: Earlier | None,
    solved: bool,
) -> int:
    texts, epochs = material.texts, settings.training.epochs
    if another:  # the teacher only reads
        minutes = expected_minutes(teacher, texts, len(texts), 0, solved=True)
        layers, teacher = 0 if solved else len(find_stack(another.model)), another
    else:
        kept = earlier.kept_layers if earlier else settings.keep
        minutes, layers = 0.0, len(kept) if isinstance(kept, tuple) else settings.layers or 0
    return max(1, round(minutes + expected_minutes(teacher, texts, len(texts), layers, epochs=epochs, solved=solved)))


def _affordable(material: Material, student: SentenceTransformer, training: TrainingSettings) -> list[str]:
    """The texts that training gets to: the teacher, which is slower than any student, need not read the others."""
    limit = texts_within_budget(student, material.texts, training)
    given, others = material.texts[: material.queries], material.texts[material.queries :]
    own_text = [text for text in others if text not in material.general]
    general = [text for text in others if text in material.general]
    return sample_texts(given, own_text, general, limit=limit, seed=training.seed)


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
