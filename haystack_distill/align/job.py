# SPDX-FileCopyrightText: 2026-present haystack-distill contributors
#
# SPDX-License-Identifier: Apache-2.0

"""KALE, the whole job: from an index and the encoder that made it to a smaller query encoder for the same index."""

import hashlib
import json
import logging
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from sentence_transformers import SentenceTransformer

from haystack_distill.align.training import TrainingSettings, texts_within_budget, train
from haystack_distill.data.beir import Qrels, check_judged
from haystack_distill.data.index import IndexView, stored_vectors
from haystack_distill.data.own_passages import toward_own_passages
from haystack_distill.data.sentences import sample_texts, split_index_text
from haystack_distill.evaluation.dev_set import DevSet, judged_by_teacher, make_dev_set
from haystack_distill.files.folders import claim, write_json
from haystack_distill.losses.alignment import NAMES, AlignmentLoss
from haystack_distill.losses.weights import checked_weights
from haystack_distill.students.bi_encoder import BiEncoder
from haystack_distill.students.cutting import check_depth, check_keep, find_stack, kale_layers
from haystack_distill.students.layer_search import LayerSearch, make_layered
from haystack_distill.students.token_table import average_over, make_token_table
from haystack_distill.training.index_evaluator import METRIC, IndexRetrievalEvaluator
from haystack_distill.training.trainer import TrainingSummary

logger = logging.getLogger(__name__)

DEFAULT_LOSS = {"mse": 1.0, "index_ranking": 2.0}
SEARCH_QUERIES, FOLD_TEXTS = 128, 2000


@dataclass(frozen=True)
class KaleSettings:
    """
    What is wanted of the student.

    :param layers: How many layers stay; 0 asks for a token table.
    :param keep: The numbers of the layers that stay, or `kale` for the paper's; None searches for the best.
    :param loss: Loss name -> weight.
    :param temperature: Of the `kale` loss.
    :param folded: Whether dropped lower layers are folded into the token embeddings.
    :param index_text: Whether text of the index is aligned on, besides given queries.
    :param passage_weight: How far the target of a sentence of the index is moved from the teacher's vector to that of
        the passage it stands in: from 0, the teacher alone, to below 1.
    :param max_texts: The most texts to align on.
    :param training: How to train.
    :raises ValueError: If a loss is not known, or a weight or the temperature not within its bounds.
    """

    layers: int = 2
    keep: tuple[int, ...] | str | None = None
    loss: Mapping[str, float] = field(default_factory=lambda: dict(DEFAULT_LOSS))
    temperature: float = 1.0
    folded: bool = True
    index_text: bool = True
    passage_weight: float = 0.2
    max_texts: int = 50_000
    training: TrainingSettings = field(default_factory=TrainingSettings)

    def __post_init__(self) -> None:
        """Check what can be checked without the encoder; weights from YAML may still be strings."""
        object.__setattr__(self, "loss", checked_weights(self.loss, NAMES))
        if not self.temperature > 0:
            msg = f"temperature must be above 0, not {self.temperature}."
            raise ValueError(msg)
        if not 0 <= self.passage_weight < 1:
            msg = f"passage_weight must be at least 0 and below 1, not {self.passage_weight}."
            raise ValueError(msg)


@dataclass(frozen=True)
class Queries:
    """
    Given queries: all optional, none needs labels.

    :param train: Texts to align on.
    :param dev: Id -> text: queries to choose layers and checkpoints on.
    :param dev_qrels: Their judgments, where there are any.
    """

    train: list[str] = field(default_factory=list)
    dev: dict[str, str] = field(default_factory=dict)
    dev_qrels: Qrels = field(default_factory=dict)


@dataclass(frozen=True)
class Aligned:
    """
    A trained student and how it came to be.

    :param student: The student.
    :param cut_only: The same cut without folding and training.
    :param kept_layers: The numbers of the layers that stayed, empty for a token table.
    :param searched: What the search measured: layers -> dev nDCG@10.
    :param texts: How many texts it was trained on, by kind.
    :param training: What happened in training.
    :param stays_untrained: Whether training made it worse on dev, so that the student is the untrained one.
    :param dev: What it was selected on, for those who export it.
    """

    student: SentenceTransformer
    cut_only: SentenceTransformer
    kept_layers: tuple[int, ...]
    searched: dict[str, float]
    texts: dict[str, int]
    training: TrainingSummary
    stays_untrained: bool
    dev: DevSet


def align(
    index: IndexView,
    teacher: BiEncoder,
    settings: KaleSettings,
    workspace: Path,
    queries: Queries | None = None,
    *,
    progress: bool = True,
) -> Aligned:
    """
    Cut the teacher's query encoder and align it with the vectors it makes and with the passages of the index.

    :param index: The index; it is only read.
    :param teacher: The encoder that made it.
    :param settings: What is wanted.
    :param workspace: Holds what a killed run needs to go on: the teacher's vectors and the checkpoints.
    :param queries: Given queries, or None to align on the index alone.
    :param progress: Whether to show progress bars.
    :returns: The student.
    :raises ValueError: If encoder and index don't belong together, there is nothing to align on, or the workspace
        holds a run with other settings.
    """
    named = _named_layers(settings, len(find_stack(teacher.model)))
    given = queries or Queries()
    check_judged(given.dev_qrels, index.ids, "The dev split of the queries")
    teacher.check_belongs_to(index)
    material = _material(index, settings, given)
    checkpoints = workspace / "checkpoints"
    made_by = {"query_prefix": teacher.query_prefix, "normalize": teacher.normalize, "dim": teacher.dim}
    claim(
        workspace,
        {
            "settings": asdict(settings),
            "teacher": made_by,
            "index": index.fingerprint,
            "texts": hashlib.sha256("\0".join([*material.texts, *material.dev.values()]).encode()).hexdigest(),
        },
        checkpoints.glob("*"),
    )
    found = judged_by_teacher(teacher, index, material.dev)
    qrels = material.dev_qrels or found
    evaluator = IndexRetrievalEvaluator(material.dev, qrels, index)
    kept = named
    searched: dict[str, float] = {}
    if kept is None:
        sample = _evaluator_sample(evaluator, index)
        kept, searched = _found_layers(workspace / "layers.json", teacher, settings, sample, material.sentences)
    student, cut_only = make_student(teacher, kept, material.sentences, settings)
    texts = _affordable(material, student, settings.training)
    # Computed once for a run and its continuations.
    vectors = stored_vectors(
        workspace / "teacher_vectors.npy",
        [index.fingerprint, json.dumps(made_by), *texts],
        lambda: teacher.encode_targets(texts, progress=progress),
    )
    vectors = toward_own_passages(vectors, texts, material.places, index, settings.passage_weight)
    loss = AlignmentLoss(
        student,
        settings.loss,
        index.ranking_vectors,
        teacher_norm=float(np.linalg.norm(vectors, axis=1).mean()),
        temperature=settings.temperature,
        seed=settings.training.seed,
    )
    untrained = evaluator(student)[METRIC]
    training = train(student, texts, vectors, loss, evaluator, checkpoints, settings.training, progress=progress)
    trained = max((entry["dev_ndcg@10"] for entry in training.history), default=untrained)
    stays_untrained = trained < untrained
    if stays_untrained:
        logger.warning(
            "Training made the student worse on dev (nDCG@10 %.4f, before %.4f), so it stays untrained: give a lower "
            "learning rate, or let it keep fewer layers.",
            trained,
            untrained,
        )
        student, _ = make_student(teacher, kept, material.sentences, settings)
    dev = make_dev_set(index, material.dev, qrels, found)
    of_queries = min(material.queries, len(texts))
    counts = {"queries": of_queries, "index_texts": len(texts) - of_queries}
    return Aligned(student, cut_only, kept, searched, counts, training, stays_untrained, dev)


class _Material(NamedTuple):
    """What a student is made with: texts to train on, given queries first; text to fold with; places; dev queries."""

    texts: list[str]
    queries: int
    sentences: list[str]
    places: dict[str, list[int]]
    dev: dict[str, str]
    dev_qrels: Qrels


def _material(index: IndexView, settings: KaleSettings, given: Queries) -> _Material:
    seed = settings.training.seed
    index_text = split_index_text(index, seed)
    dev = given.dev or index_text.dev
    # Without index text it still serves the layer search, the folding and, where no queries are given, dev.
    texts = sample_texts(given.train, index_text.rest if settings.index_text else [], settings.max_texts, seed)
    if len(texts) < 2 or len(dev) < 2:
        msg = (
            f"There is too little to align on: {len(texts)} texts and {len(dev)} dev queries; give queries or longer "
            "documents."
        )
        raise ValueError(msg)
    queries = min(len(set(given.train)), len(texts))
    return _Material(texts, queries, index_text.rest or texts, index_text.places, dev, given.dev_qrels)


def _affordable(material: _Material, student: SentenceTransformer, training: TrainingSettings) -> list[str]:
    """The texts that training gets to: the teacher, which is slower than any student, need not read the others."""
    limit = texts_within_budget(student, material.texts, training)
    return sample_texts(
        material.texts[: material.queries], material.texts[material.queries :], limit, seed=training.seed
    )


def make_student(
    teacher: BiEncoder, kept: tuple[int, ...], texts: list[str], settings: KaleSettings
) -> tuple[SentenceTransformer, SentenceTransformer]:
    """
    Build the untrained student and the plain cut that it is compared with.

    :param teacher: The teacher.
    :param kept: The layers that stay; none for a token table.
    :param texts: Text of the index, for folding.
    :param settings: What is wanted.
    :returns: The student, and the encoder that is only cut.
    """
    sample = texts[:: max(1, len(texts) // FOLD_TEXTS)]
    if not kept:
        cut_only = make_token_table(teacher)
        return average_over(cut_only, teacher, sample), cut_only
    student = make_layered(teacher, kept, sample, folded=settings.folded)
    return student, make_layered(teacher, kept, [], folded=False)


def _evaluator_sample(evaluator: IndexRetrievalEvaluator, index: IndexView) -> IndexRetrievalEvaluator:
    """A smaller one for the layer search."""
    ids = evaluator.queries_ids[:: max(1, len(evaluator.queries_ids) // SEARCH_QUERIES)]
    queries: dict[str, Any] = dict(zip(evaluator.queries_ids, evaluator.queries, strict=True))
    qrels = {query_id: dict.fromkeys(evaluator.relevant_docs[query_id], 1) for query_id in ids}
    return IndexRetrievalEvaluator(queries, qrels, index)


def _named_layers(settings: KaleSettings, depth: int) -> tuple[int, ...] | None:
    """The layers that the settings name, none for a token table; None if they are to be searched for."""
    if isinstance(settings.keep, str):
        if settings.keep != "kale":
            msg = f"keep={settings.keep!r} is not known: give layer numbers, or 'kale' for the paper's."
            raise ValueError(msg)
        return kale_layers(depth, settings.layers)
    if settings.keep is not None:
        return check_keep(settings.keep, depth)
    check_depth(settings.layers, depth)
    return None if settings.layers else ()


def _found_layers(
    file: Path, teacher: BiEncoder, settings: KaleSettings, evaluator: IndexRetrievalEvaluator, texts: list[str]
) -> tuple[tuple[int, ...], dict[str, float]]:
    """Search, unless a killed run did: its checkpoints fit the layers it found, and another search may find others."""
    if file.exists():
        before = json.loads(file.read_text(encoding="utf-8"))
        return tuple(before["kept"]), before["searched"]
    tokens = {token for row in teacher.model.tokenizer(evaluator.queries)["input_ids"] for token in row}
    found = LayerSearch(
        teacher, lambda student: evaluator(student)[METRIC], texts[:: max(1, len(texts) // 500)], tokens
    )
    best = found.best(settings.layers)
    scores = {" ".join(map(str, layers)): score for layers, score in found.scores.items() if np.isfinite(score)}
    logger.info("Layers %s stay; the search measured %s.", list(best), scores)
    write_json(file, {"kept": best, "searched": scores})
    return best, scores
