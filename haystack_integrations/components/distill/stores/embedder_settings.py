"""How an index was embedded, said by its users or read from the document embedder that made it."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

KIND = "SentenceTransformersDocumentEmbedder"
READ = {"document_prefix": "prefix"} | {
    name: name for name in ("normalize_embeddings", "truncate_dim", "meta_fields_to_embed", "embedding_separator")
}
"""Names here -> names in that embedder."""
LOADING = ("trust_remote_code", "revision", "local_files_only", "token")
UNREAD = ("suffix", "tokenizer_kwargs", "config_kwargs", "encode_kwargs")
"""What would change vectors in ways that a student can't learn from its settings."""


@dataclass(frozen=True)
class EmbedderSettings:
    """
    The encoder of an index and what its documents were embedded with.

    :param query_prefix: Put before every query; None takes the model's own prompt.
    :param document_prefix: Put before every document; None takes the model's own prompt.
    :param normalize_embeddings: Whether vectors were scaled to length 1, beyond what the model does itself.
    :param truncate_dim: How many values of each vector were kept; None means all.
    :param meta_fields_to_embed: Meta fields that were embedded with the content.
    :param similarity: How the store ranks; None finds out.
    :param loading: How `SentenceTransformer` loads the model of a document embedder; None for a model that was named.
    """

    model: str
    query_prefix: str | None = None
    document_prefix: str | None = None
    normalize_embeddings: bool = False
    truncate_dim: int | None = None
    meta_fields_to_embed: Sequence[str] = ()
    embedding_separator: str = "\n"
    similarity: str | None = None
    loading: dict[str, Any] | None = None

    @classmethod
    def of(cls, embedder: Any, **settings: Any) -> "EmbedderSettings":
        """
        Take settings as they are given, or from the document embedder of an indexing pipeline.

        :param embedder: Folder or hub name of the encoder, or a `SentenceTransformersDocumentEmbedder`.
        :param settings: The other fields but `loading`; a `model` among them is another one.
        :raises TypeError: If it is another embedder.
        :raises ValueError: If a setting is given that the embedder has, or the embedder has one that can't be read.
        """
        settings |= {"meta_fields_to_embed": settings.get("meta_fields_to_embed") or []}
        settings.pop("model", None)
        if isinstance(embedder, str | Path):
            return cls(str(embedder), **settings)
        kind = type(embedder).__name__
        if kind != KIND:
            msg = f"The encoder of an index is a folder, a hub name or a {KIND}, not a {kind}."
            raise TypeError(msg)
        twice = [name for name in READ if settings.get(name) not in (getattr(cls, name), None, [])]
        if twice:
            msg = f"`{twice[0]}` is read from the {kind}: set it there only."
            raise ValueError(msg)
        unread = [name for name in UNREAD if getattr(embedder, name)]
        if unread:
            msg = f"The {kind} has `{unread[0]}`, which is not read from it: name the model, and its prefix, instead."
            raise ValueError(msg)
        read = {name: getattr(embedder, theirs) for name, theirs in READ.items()}
        loading = {name: getattr(embedder, name) for name in LOADING}
        return cls(embedder.model, **{**settings, **read}, loading=loading)

    def of_saved(self) -> dict[str, Any]:
        """The same as init parameters beside a folder that the model was saved to, with its prompts."""
        saved = {"model", "loading"} | ({"document_prefix"} if self.loading else set())
        return {name: value for name, value in vars(self).items() if name not in saved}
