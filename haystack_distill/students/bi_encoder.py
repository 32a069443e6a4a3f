"""The bi-encoder that embedded the index, as a teacher of query vectors."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from sentence_transformers import SentenceTransformer

from haystack_distill.data.index import IndexView
from haystack_distill.data.similarity import cosines
from haystack_distill.files.precision import bf16_where_fast
from haystack_distill.files.progress import with_bar
from haystack_distill.students.prompt import prompt_for

SAMPLE = 16
"""Stored texts that are embedded again to see whether the encoder made the index."""

QUERIES_AT_ONCE = 64
"""Queries of a batch."""

MATCH = 0.99
"""Mean cosine from which two vectors of the same text count as made by the same model (bf16 and int8 indexes pass)."""


@dataclass(frozen=True)
class BiEncoder:
    """
    A sentence-transformers bi-encoder with the settings that the index was made with.

    :param query_prefix: What is put before every query.
    :param document_prefix: What is put before every document.
    :param normalize: Whether vectors are scaled to length 1.
    :param dim: Vectors are cut to their first `dim` values (Matryoshka), then normalised if asked for.
    :param load_model: Loads the model again, in another process.
    :param num_workers: How many processes read, where many texts are embedded; see `files.bulk`.
    """

    model: SentenceTransformer
    query_prefix: str
    document_prefix: str
    normalize: bool
    dim: int
    load_model: Callable[[], SentenceTransformer]
    num_workers: int = 1

    @classmethod
    def load(
        cls,
        name: str,
        *,
        query_prefix: str | None = None,
        document_prefix: str | None = None,
        normalize: bool = False,
        dim: int | None = None,
        device: str | None = None,
        **model_arguments: Any,
    ) -> "BiEncoder":
        """
        Load the teacher from a folder or by its name on the hub, which is not asked about a folder.

        :param query_prefix: None takes the model's own `query` prompt, or its default prompt, or none.
        :param document_prefix: None takes the model's own `document` prompt, or its default prompt, or none.
        :param normalize: Whether the embedder of the index normalises, beyond what the model does itself.
        :param model_arguments: What else `SentenceTransformer` takes.
        :raises ValueError: If the model has fewer dimensions than asked for.
        """
        model_arguments.setdefault("local_files_only", Path(name).is_dir())
        load_model = partial(_load_model, name, device=device, **model_arguments)
        model = load_model()
        full = model.get_embedding_dimension()
        own = {task: prompt_for(task, model.prompts, model.default_prompt_name) for task in ("query", "document")}
        if full is None or (dim and dim > full):
            msg = f"The encoder {name} has {full} dimensions, so {dim} can't be kept of them."
            raise ValueError(msg)
        return cls(
            model,
            own["query"] if query_prefix is None else query_prefix,
            own["document"] if document_prefix is None else document_prefix,
            normalize,
            dim or full,
            load_model,
        )

    def encode_queries(self, texts: list[str]) -> np.ndarray:
        """Embed queries as they are embedded when the index is searched: `[texts, dim]`, float32."""
        return self._encode(texts, self.query_prefix, QUERIES_AT_ONCE)

    def encode_targets(
        self, texts: list[str], *, progress: bool = False, what: str = "The teacher reads"
    ) -> np.ndarray:
        """
        Embed many queries to train on, in bfloat16 where the device multiplies it in hardware: `[texts, dim]`, float32.

        On a CPU that is 1.6 times as fast, and the vectors' cosine with those of `encode_queries` is above 0.9999.
        """
        if self.num_workers > 1:
            make = partial(_target_reader, self.maker())
            return with_bar(make, texts, what, QUERIES_AT_ONCE, shown=progress, num_workers=self.num_workers)
        with bf16_where_fast(self.model.device):
            return self._encode(texts, self.query_prefix, QUERIES_AT_ONCE, progress, what)

    def encode_documents(self, texts: list[str], *, batch_size: int = 32, progress: bool = False) -> np.ndarray:
        """Embed documents as they are embedded in the index: `[texts, dim]`, float32."""
        return self._encode(texts, self.document_prefix, batch_size, progress, "Embedding documents")

    def maker(self) -> Callable[[], "BiEncoder"]:
        """What gives this encoder to the processes that read: itself in this one, loaded again in others."""
        if self.num_workers == 1:
            return lambda: self
        settings = (self.query_prefix, self.document_prefix, self.normalize, self.dim, self.load_model)
        return partial(_loaded_again, *settings)

    def check_belongs_to(self, index: IndexView) -> None:
        """
        Embed a few stored texts again and compare them with the vectors in the index.

        :raises ValueError: If the vectors don't match; the message says in what they differ.
        """
        if index.dim != self.dim:
            msg = (
                f"The index holds vectors of {index.dim} dimensions and the encoder makes {self.dim}: name the encoder "
                "that the documents were embedded with (and `truncate_dim`, if it was used)."
            )
            raise ValueError(msg)
        rows = [row for row, text in enumerate(index.texts) if text]
        rows = rows[:: math.ceil(len(rows) / SAMPLE) or 1]  # from the whole index: its end may be by another encoder
        if not rows:
            msg = "No document in the store has a text, so it can't be checked that the encoder made the vectors."
            raise ValueError(msg)
        ours, stored = self.encode_documents([index.texts[row] for row in rows]), index.vectors[rows]
        lengths = np.linalg.norm(stored, axis=1) / np.linalg.norm(ours, axis=1)
        if not cosines(ours, stored).mean() >= MATCH:
            raise ValueError(self._difference([index.texts[row] for row in rows], ours, stored))
        if index.similarity == "dot_product" and np.abs(lengths - 1).max() > 0.05:
            msg = (
                f"The stored vectors are {lengths.mean():.2f} times as long as the encoder's: set "
                f"`normalize_embeddings` as in the document embedder (it is {self.normalize} here)."
            )
            raise ValueError(msg)

    def _difference(self, texts: list[str], ours: np.ndarray, stored: np.ndarray) -> str:
        """Say what would make the vectors equal, or that it is another model."""
        for prefix in {"", *(prompt for prompt in self.model.prompts.values() if prompt)} - {self.document_prefix}:
            if cosines(self._encode(texts, prefix, 32), stored).mean() >= MATCH:
                return (
                    f"The documents were embedded with the prefix {prefix!r}, not {self.document_prefix!r}: "
                    f"set `document_prefix` to {prefix!r}."
                )
        differ = int(np.sum(cosines(ours, stored) < MATCH))
        return (
            f"The vectors in the index were not made by this encoder (mean cosine {cosines(ours, stored).mean():.3f}, "
            f"{differ} of {len(texts)} stored texts embedded again differ): name the model of the document embedder, "
            "and its prefix and `meta_fields_to_embed` if it has them."
            + (" If two models made it, embed all of it with one." if differ < len(texts) else "")
        )

    def _encode(
        self, texts: list[str], prefix: str, batch_size: int, progress: bool = False, what: str = "Embedding"
    ) -> np.ndarray:
        encode = partial(
            self.model.encode,
            prompt=prefix,
            batch_size=batch_size,
            show_progress_bar=False,
            normalize_embeddings=self.normalize,
            truncate_dim=self.dim,
            convert_to_numpy=True,
        )
        return with_bar(lambda: encode, texts, what, batch_size, shown=progress)


def _load_model(name: str, **arguments: Any) -> SentenceTransformer:
    model = SentenceTransformer(name, **arguments)
    model.eval()
    return model


def _loaded_again(*settings: Any) -> BiEncoder:
    *_, load_model = settings
    return BiEncoder(load_model(), *settings)


def _target_reader(make: Callable[[], BiEncoder]) -> Callable[[list[str]], np.ndarray]:
    return make().encode_targets
