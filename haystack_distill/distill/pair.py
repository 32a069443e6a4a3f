"""
Asymmetric dual encoders: a shallow query and a deeper document encoder, cut from one model and trained together.

The KALE paper's other half (arXiv 2304.01016, section 3): queries are encoded while somebody waits and documents once,
so depth is taken from the query side. Unlike an alignment this moves the document vectors, so the index must be made
anew. docs/asymmetric.md has an example.
"""

from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from datasets import Dataset
from sentence_transformers import SentenceTransformer

from haystack_distill.data.beir import BeirFolder, Qrels
from haystack_distill.data.index import IndexView
from haystack_distill.data.training_set import TrainingSet
from haystack_distill.distill.pair_training import AsymmetricTraining, check_batches, routed, train_routes
from haystack_distill.evaluation.evaluators import IndexRetrievalEvaluator, ReembeddingEvaluator
from haystack_distill.evaluation.proof import index_facts, save_model
from haystack_distill.evaluation.quality import Quality, measure, search
from haystack_distill.files.folders import published, write_json
from haystack_distill.files.runs import claim, fingerprint
from haystack_distill.students.bi_encoder import BiEncoder
from haystack_distill.students.cutting import find_stack
from haystack_distill.students.layer_search import LayerSearch, make_layered
from haystack_distill.training.trainer import METRIC

FOLD_TEXTS = 2000
"""Texts of the index over which dropped layers are averaged into the token embeddings."""

SEARCH_QUERIES = 100
"""Dev queries on which layers are chosen."""

SIDES = ("query", "document")

SUMMARY = "asymmetric.json"
"""What a pair's folder says of both encoders."""


@dataclass(frozen=True)
class AsymmetricSettings:
    """How many layers each encoder keeps, and how they are trained."""

    query_layers: int
    document_layers: int
    training: AsymmetricTraining = field(default_factory=AsymmetricTraining)


@dataclass(frozen=True)
class AsymmetricPair:
    """
    Two plain encoders of one vector space, each with its own prompt and normalisation.

    :param summary: `layers` (of each side, by their numbers in the teacher), `rows`, `seconds`, `history`, `settings`,
        and `index`, against which a store is checked.
    """

    query_model: SentenceTransformer
    document_model: SentenceTransformer
    summary: dict[str, Any]

    @property
    def models(self) -> dict[str, SentenceTransformer]:
        """Side -> encoder."""
        return dict(zip(SIDES, (self.query_model, self.document_model), strict=True))


def rows_of_training_set(training_set: TrainingSet, *, negatives: bool = True) -> Dataset:
    """
    Training rows from teacher scores: the teacher's first passage is the positive.

    The negative is the passage that the retriever ranks highest among the lower half in the teacher's eyes: near enough
    to teach, and not the runner-up, which may well answer too.

    :param negatives: Whether to give each query a hard negative.
    :returns: `query`, `positive` and perhaps `negative`. Queries with equal scores, or too few passages, are left out.
    :raises ValueError: If the set is not labelled, or no query is left.
    """
    rows = []
    for row in training_set.labelled():
        scores = np.array(row.teacher_scores)
        order = np.argsort(-scores, kind="stable")
        if len(scores) < 2 or scores[order[0]] == scores[order[-1]]:
            continue
        low = min(int(place) for place in order[(len(order) + 1) // 2 :])  # passages stand in the retriever's order
        pair = {"query": row.query, "positive": row.documents[int(order[0])]}
        rows.append({**pair, "negative": row.documents[low]} if negatives else pair)
    return _dataset(rows, f"{training_set.folder} has no query whose passages differ in their teacher scores")


def rows_of_qrels(data: BeirFolder, split: str = "train") -> Dataset:
    """Training rows from judgments: `query` and `positive`, a row a relevant passage; a ValueError if there is none."""
    judged = data.qrels.get(split, {})
    rows = [
        {"query": data.queries[query_id], "positive": data.documents[document]}
        for query_id, documents in judged.items()
        for document in documents
    ]
    return _dataset(rows, f"The split {split!r} has no judgments")


def train_asymmetric(
    teacher: BiEncoder,
    rows: Dataset,
    settings: AsymmetricSettings,
    workspace: Path,
    index: IndexView,
    dev_queries: dict[str, str],
    dev_qrels: Qrels,
    *,
    progress: bool = True,
) -> AsymmetricPair:
    """
    Cut a query and a document encoder out of one bi-encoder and train them together.

    Which layers stay is searched for each depth as an alignment does, on what a query encoder of that depth finds in
    the index as it is. A run that was killed goes on from its last checkpoint.

    :param teacher: The bi-encoder that made the index; it is left as it is.
    :param rows: `query`, `positive` and perhaps `negative`: see `rows_of_training_set` and `rows_of_qrels`.
    :param index: The index: its texts are embedded again, its vectors serve the choice of layers.
    :param dev_queries: Query id -> text, to choose layers and checkpoint on.
    :raises ValueError: If a depth does not fit, rows lack a column, no batch of them can be filled, or the workspace
        holds a run with other settings.
    """
    _check(teacher, rows, settings)
    checkpoints = workspace / "checkpoints"
    claim(workspace, run_of(teacher, rows, settings, index, dev_queries, dev_qrels), checkpoints.glob("*"))
    layers = _choose_layers(teacher, settings, index, dev_queries, dev_qrels)
    texts = _spread(index.texts, FOLD_TEXTS)
    prompts = {"query": teacher.query_prefix, "document": teacher.document_prefix}
    query, document = (make_layered(teacher, layers[side], texts) for side in SIDES)
    student = routed(query, document, prompts)
    evaluator = ReembeddingEvaluator(dev_queries, dev_qrels, index)
    training = train_routes(student, rows, evaluator, index, checkpoints, settings.training, progress=progress)
    trained = {side: _plain(student, side, prompts[side]) for side in SIDES}
    some = embedded(trained["document"], _spread(index.texts, FOLD_TEXTS))
    summary = {
        "layers": {side: list(layers[side]) for side in SIDES},
        "rows": len(rows),
        "seconds": training.seconds,
        "history": training.history,
        "settings": asdict(settings),
        "index": index_facts(index, embedded_again=some),
    }
    return AsymmetricPair(trained["query"], trained["document"], summary)


def run_of(
    teacher: BiEncoder,
    rows: Dataset,
    settings: AsymmetricSettings,
    index: IndexView,
    dev_queries: dict[str, str],
    dev_qrels: Qrels,
) -> dict[str, Any]:
    """What a pair depends on."""
    return {
        "settings": settings,
        "teacher": {"query_prefix": teacher.query_prefix, "normalize": teacher.normalize, "dim": teacher.dim},
        "index": index.fingerprint,
        "rows": fingerprint([list(rows[name]) for name in rows.column_names]),
        "dev": fingerprint([{key: dev_queries[key] for key in dev_qrels}, dev_qrels]),
    }


def embedded(model: SentenceTransformer, texts: list[str]) -> np.ndarray:
    """The vectors of documents, `[texts, dim]`, float32."""
    return np.asarray(model.encode(texts, batch_size=64, show_progress_bar=False), dtype=np.float32)


def save_pair(pair: AsymmetricPair, folder: str | Path) -> None:
    """
    Write both encoders as plain sentence-transformers folders, `query` and `document`.

    Never as one `Router`: stock embedders know nothing of routes and would send queries through the document encoder.

    :raises FileExistsError: If it is there already.
    :raises ValueError: If an encoder that is loaded again makes other vectors.
    """
    with published(folder) as unfinished:
        for side, model in pair.models.items():
            save_model(unfinished / side, model, [f"What does the loaded {side} encoder make of it?"], pair.summary)
        write_json(unfinished / SUMMARY, pair.summary)


def measure_pair(pair: AsymmetricPair, index: IndexView, queries: dict[str, str], qrels: Qrels) -> Quality:
    """How well a pair retrieves, with all documents of the index embedded again; only the texts of the index count."""
    moved = replace(index, vectors=embedded(pair.document_model, index.texts))
    found = embedded(pair.query_model, [queries[query_id] for query_id in qrels])
    return measure(search(moved, list(qrels), found), qrels)


def _dataset(rows: list[dict[str, str]], fault: str) -> Dataset:
    if not rows:
        msg = f"{fault}, so there is nothing to train two encoders on."
        raise ValueError(msg)
    return Dataset.from_list(rows)


def _check(teacher: BiEncoder, rows: Dataset, settings: AsymmetricSettings) -> None:
    columns = rows.column_names
    if columns[:2] != ["query", "positive"] or columns[2:] not in ([], ["negative"]):
        msg = f"The training rows have the columns {', '.join(columns)}; needed: query, positive and, if any, negative."
        raise ValueError(msg)
    check_batches(rows, settings.training.batch_size)
    depth = len(find_stack(teacher.model))
    for side in SIDES:
        asked = getattr(settings, f"{side}_layers")
        if not 1 <= asked <= depth:
            msg = (
                f"{side}_layers={asked} does not fit: the encoder has {depth} layers, and each side keeps one or more. "
                "A token table for queries is made by KaleAligner with layers=0, and needs no new index."
            )
            raise ValueError(msg)


def _choose_layers(
    teacher: BiEncoder, settings: AsymmetricSettings, index: IndexView, queries: dict[str, str], qrels: Qrels
) -> dict[str, tuple[int, ...]]:
    some = {query_id: qrels[query_id] for query_id in _spread(list(qrels), SEARCH_QUERIES)}
    evaluator = IndexRetrievalEvaluator(queries, some, index)
    tokens = {token for row in teacher.model.tokenizer(evaluator.queries)["input_ids"] for token in row}
    texts = _spread(index.texts, FOLD_TEXTS // 4)

    def best(layers: int) -> tuple[int, ...]:
        search_for = LayerSearch(teacher, lambda student: evaluator(student)[METRIC], texts, tokens)
        return search_for.best(layers)

    chosen = {depth: best(depth) for depth in {settings.query_layers, settings.document_layers}}
    return {"query": chosen[settings.query_layers], "document": chosen[settings.document_layers]}


def _plain(student: SentenceTransformer, side: str, prompt: str) -> SentenceTransformer:
    """One route as an encoder of its own."""
    router: Any = student[0]
    model = SentenceTransformer(modules=list(router.sub_modules[side]), device=str(student.device))
    model.prompts = {side: prompt} if prompt else {}
    model.default_prompt_name = side if prompt else None
    return model.eval()


def _spread(values: list[Any], most: int) -> list[Any]:
    return values[:: max(1, -(-len(values) // most))]
