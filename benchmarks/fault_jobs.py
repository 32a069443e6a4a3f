"""Every long job on made models and data, so small that it takes seconds: what `benchmarks.faults` kills."""

import hashlib
import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from haystack import Document, component
from haystack.components.retrievers.in_memory import InMemoryBM25Retriever, InMemoryEmbeddingRetriever
from haystack.dataclasses import ChatMessage
from haystack.document_stores.in_memory import InMemoryDocumentStore
from haystack_integrations.document_stores.qdrant import QdrantDocumentStore
from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer.modules import Normalize, Pooling, Transformer
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import BertConfig, BertModel, LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from haystack_distill import (
    DistillationLoop,
    GenerativeAugmenter,
    IndexSwitcher,
    KaleAligner,
    RetrieverDistiller,
    TrainingSetBuilder,
)
from haystack_distill.data.beir import read_beir
from haystack_distill.data.training_set import RECIPROCAL_RANK, Row, write_training_set
from haystack_distill.evaluation.dev_set import read_dev_set
from haystack_distill.serving.export import export
from haystack_distill.students.bi_encoder import BiEncoder
from haystack_distill.teachers.answers import AnswerSettings
from haystack_distill.teachers.fine_tuning import FineTuningSettings, fine_tune_reader
from haystack_distill.teachers.labelling import label
from haystack_distill.teachers.scores import Candidates, Scored

WORDS = (
    "river bridge stone winter market garden letter engine doctor harbour lantern copper velvet thunder meadow sailor "
    "window orchard marble pepper basket candle feather hammer island jacket kettle ladder mirror needle"
).split()
DOCUMENTS, DIM = 40, 32


@dataclass(frozen=True)
class Job:
    """
    A job of seconds.

    :param run: Does it in a folder, given also the folder with what `prepare` made; what it makes is called `out`.
    :param start: Copies there what the job changes.
    """

    run: Callable[[Path, Path], Any]
    start: Callable[[Path, Path], Any] = lambda made, folder: None  # noqa: ARG005


@component
class MadeChat:
    """A chat generator that answers with some of the words that it is asked about."""

    @component.output_types(replies=list[ChatMessage])
    def run(self, messages: list[ChatMessage]) -> dict[str, Any]:
        """
        Answer.

        :param messages: The chat.
        :returns: `replies`: one.
        """
        asked = str(messages[-1].text)
        words = [word for word in WORDS if word in asked]
        number = int(hashlib.sha256(asked.encode()).hexdigest(), 16)
        chosen = [words[(number >> shift) % len(words)] for shift in range(0, 48, 8)] if words else ["river"]
        return {"replies": [ChatMessage.from_assistant(f"Where is the {' '.join(chosen)}?")]}


class MadeTeacher:
    """Scores passages by the words that they share with the question."""

    def score(self, rows: list[Candidates]) -> list[Scored]:
        """Score the passages of some questions."""
        return [Scored(np.array([_shared(row.query, text) for text in row.passages])) for row in rows]


def _shared(one: str, other: str) -> float:
    return float(len({*one.split()} & {*other.split()}))


def prepare(made: Path) -> None:
    """Make models, documents and training sets for all jobs."""
    draw = np.random.default_rng(0)
    texts = [" ".join(f"{' '.join(draw.choice(WORDS, 7))}." for _ in range(3)) for _ in range(DOCUMENTS)]
    _write_folder(made / "questions", dict(zip(map(str, range(DOCUMENTS)), texts, strict=True)))
    for seed, name in enumerate(("encoder", "other")):
        _write_encoder(made / name, seed)
    _write_reader(made / "reader")
    rows = [
        Row(
            f"q{n}",
            " ".join(texts[n].split()[:4]),
            [texts[n].split()[0]],
            [str((n + k) % DOCUMENTS) for k in range(4)],
            [texts[(n + k) % DOCUMENTS] for k in range(4)],
            [1, 1 / 2, 1 / 3, 1 / 4],
        )
        for n in range(DOCUMENTS)
    ]
    write_training_set(made / "unlabelled", rows, retriever="made", similarity=RECIPROCAL_RANK, shard_rows=10)
    shutil.copytree(made / "unlabelled", made / "labelled")
    _label(made, made, "labelled")
    KaleAligner(**_index(made), output=str(made / "student"), layers=1, keep=[0], epochs=1, progress_bar=False).run()


def _write_folder(folder: Path, documents: dict[str, str]) -> None:
    (folder / "qrels").mkdir(parents=True)
    queries = {key: " ".join(text.split()[1:5]) for key, text in documents.items()}
    for name, rows in (("corpus", documents), ("queries", queries)):
        lines = (json.dumps({"_id": key, "text": text}) for key, text in rows.items())
        (folder / f"{name}.jsonl").write_text("\n".join(lines))
    for split, keys in (("train", range(24)), ("dev", range(24, 32)), ("test", range(32, DOCUMENTS))):
        (folder / "qrels" / f"{split}.tsv").write_text("\n".join(f"{key}\t{key}\t1" for key in keys))


def _tokenizer() -> PreTrainedTokenizerFast:
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "</s>"]
    pieces = {piece: number for number, piece in enumerate([*special, ".", "?", *sorted(WORDS)])}
    raw = Tokenizer(models.WordLevel(pieces, unk_token="[UNK]"))  # noqa: S106
    raw.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    raw.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    names = dict(zip(("pad_token", "unk_token", "cls_token", "sep_token", "eos_token"), special, strict=True))
    return PreTrainedTokenizerFast(tokenizer_object=raw, model_max_length=128, **names)


def _write_encoder(folder: Path, seed: int) -> None:
    torch.manual_seed(seed)
    tokenizer, plain = _tokenizer(), folder.with_name(f"{folder.name}-transformer")
    config = BertConfig(
        vocab_size=len(tokenizer),
        hidden_size=DIM,
        num_hidden_layers=2,
        num_attention_heads=4,
        intermediate_size=64,
        pad_token_id=0,
        initializer_range=0.2,
    )
    BertModel(config).save_pretrained(plain)
    tokenizer.save_pretrained(plain)
    modules = [Transformer(str(plain)), Pooling(DIM, pooling_mode="mean"), Normalize()]
    SentenceTransformer(modules=modules, device="cpu").save(str(folder), create_model_card=False)


def _write_reader(folder: Path) -> None:
    torch.manual_seed(0)
    tokenizer = _tokenizer()
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=DIM,
        num_hidden_layers=1,
        num_attention_heads=4,
        intermediate_size=48,
        max_position_embeddings=400,
        pad_token_id=0,
        bos_token_id=2,
        eos_token_id=4,
    )
    LlamaForCausalLM(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def _store(made: Path) -> InMemoryDocumentStore:
    documents = read_beir(made / "questions").documents
    vectors = BiEncoder.load(str(made / "encoder"), device="cpu").encode_documents(list(documents.values()))
    store = InMemoryDocumentStore(embedding_similarity_function="cosine")
    rows = zip(documents.items(), vectors.tolist(), strict=True)
    store.write_documents([Document(id=key, content=text, embedding=vector) for (key, text), vector in rows])
    return store


def _index(made: Path) -> dict[str, Any]:
    return {"document_store": _store(made), "teacher": str(made / "encoder")}


def _align(made: Path, folder: Path, **settings: Any) -> None:
    how = {"layers": 1, "epochs": 2, "batch_size": 32, "progress_bar": False, **settings}
    KaleAligner(**_index(made), output=str(folder / "out"), **how).run()


def _export(made: Path, folder: Path) -> None:  # noqa: ARG001
    if not (folder / "out" / "onnx-fp32").exists():
        export(folder / "out", "onnx", "fp32", read_dev_set(folder / "out"))


def _distill(made: Path, folder: Path, **settings: Any) -> None:
    RetrieverDistiller(
        document_store=_store(made),
        model=str(made / "encoder"),
        output=str(folder / "out"),
        **{"epochs": 2, "batch_size": 8, "progress_bar": False, **settings},
    ).run(training_set=str(made / "labelled"))


def _label(made: Path, folder: Path, name: str = "out") -> None:  # noqa: ARG001
    label(folder / name, {"model": "made"}, MadeTeacher, rows_at_once=3, progress=False)


def _build(made: Path, folder: Path) -> None:
    retriever = InMemoryBM25Retriever(_store(made))
    builder = TrainingSetBuilder(
        retriever=retriever, top_k=4, shard_rows=5, output=str(folder / "out"), progress_bar=False
    )
    builder.run(queries=str(made / "questions"))


def _generate(made: Path, folder: Path) -> None:
    augmenter = GenerativeAugmenter(
        generator=MadeChat(), output=str(folder / "out"), n=1, seeded=False, concurrency=1, progress_bar=False
    )
    augmenter.run(source=str(made / "questions"))


def _fit_reader(made: Path, folder: Path) -> None:
    settings = FineTuningSettings("loop", 2, AnswerSettings(epochs=2, batch_size=8))
    fine_tune_reader(made / "labelled", str(made / "reader"), folder / "out", settings, device="cpu", progress=False)


def _loop(made: Path, folder: Path) -> None:
    DistillationLoop(
        retriever=InMemoryEmbeddingRetriever(_store(made)),
        model=str(made / "encoder"),
        output=str(folder / "out"),
        rounds=2,
        top_k=4,
        distiller={"update": "both", "epochs": 1, "batch_size": 8},
        progress_bar=False,
    ).run(queries=str(made / "questions"), judged=str(made / "questions"))


def _open(folder: Path) -> QdrantDocumentStore:
    return QdrantDocumentStore(path=str(folder), embedding_dim=DIM, similarity="cosine", progress_bar=False)


def _reindex(made: Path, folder: Path) -> None:
    old, new = _open(folder / "old"), _open(folder / "new")
    switcher = IndexSwitcher(
        document_store=old,
        teacher=str(made / "encoder"),
        new_document_store=new,
        model=str(made / "other"),
        pointer=str(folder / "out.json"),
        max_loss=1.0,
        progress_bar=False,
    )
    switcher.run(queries=str(made / "questions"))
    rows = sorted(
        (document.id, document.content, np.round(document.embedding, 4).tolist()) for document in new.filter_documents()
    )
    (folder / "index.json").write_text(json.dumps(rows))


def _first_index(made: Path, folder: Path) -> None:
    _open(folder / "old").write_documents(_store(made).filter_documents())


JOBS = {
    "align": Job(_align),
    "align and export": Job(partial(_align, export=["onnx-fp32"])),
    "export": Job(_export, lambda made, folder: shutil.copytree(made / "student", folder / "out")),
    "distill": Job(_distill),
    "pair": Job(partial(_distill, asymmetric={"query_layers": 1, "document_layers": 2})),
    "label": Job(_label, lambda made, folder: shutil.copytree(made / "unlabelled", folder / "out")),
    "training set": Job(_build),
    "generate": Job(_generate),
    "fit a reader": Job(_fit_reader),
    "loop": Job(_loop),
    "reindex": Job(_reindex, _first_index),
}
