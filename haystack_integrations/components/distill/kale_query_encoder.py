import asyncio
import os
from dataclasses import replace
from functools import lru_cache
from threading import Lock
from typing import Any
from weakref import WeakSet

from haystack import component
from haystack.utils import ComponentDevice, Secret

from haystack_distill.serving.encoder import Encoder, abandon
from haystack_distill.serving.hub import local_folder
from haystack_distill.serving.opening import open_encoder
from haystack_integrations.components.distill.parts.serialising import Serialisable

_ENCODERS: "WeakSet[KaleQueryEncoder]" = WeakSet()


@component
class KaleQueryEncoder(Serialisable):
    """
    Embeds queries with a student that `KaleAligner` made, for the index its teacher made.

    A drop-in for `SentenceTransformersTextEmbedder` in query pipelines. The student applies its own prompt and
    normalisation, so there is little to set but the folder. Inside a `DistilledRetriever` the vector never crosses a
    pipeline edge, which costs more than a small encoder does.

    Beside torch it runs on ONNX Runtime and OpenVINO, at fp32 and int8, from files that `haystack-distill export` or
    `KaleAligner` put beside the model. By default it takes the fastest of those that are there and that compute on
    this machine what they computed where they were made; the log says which. A token table is served with numpy. Only
    the torch backend loads torch, and any folder that sentence-transformers can load will do for it; the model's own
    prompt for queries, or its default prompt, is put before each.

    ### Usage example

    ```python
    from haystack_distill import KaleQueryEncoder

    encoder = KaleQueryEncoder(model="models/minilm-2-layers")
    embedding = encoder.run(text="How do I merge two dictionaries?")["embedding"]
    ```
    """

    def __init__(
        self,
        model: str,
        device: ComponentDevice | None = None,
        *,
        backend: str = "auto",
        precision: str | None = None,
        threads: int = 1,
        cache_size: int = 0,
        revision: str | None = None,
        token: Secret | None = None,
    ) -> None:
        """
        Create the encoder; the model is loaded by `warm_up` or the first run.

        :param model: Folder of the student, that of one of its exports alone, or its name on the hub.
        :param device: Where the torch backend runs; None takes the default device of the machine that loads it. Other
            backends run on the CPU.
        :param backend: `auto`, `torch`, `onnx` or `openvino`. A token table has its own and ignores this.
        :param precision: `fp32` or `int8`. None takes fp32, and leaves it open to `auto`.
        :param threads: Threads a query, of onnx and openvino.
        :param cache_size: How many vectors of repeated queries to keep; 0 keeps none.
        :param revision: The branch, tag or commit of a model on the hub: pin it, so that it stays the one you measured.
        :param token: For a private repository; None takes what `HF_TOKEN` or `hf auth login` says.
        """
        self.keep_parameters(locals())
        self.model = str(model)
        self._loaded: tuple[int, Encoder] | None = None  # in which process; both change in one step
        self._lock = Lock()
        _ENCODERS.add(self)

    def warm_up(self) -> None:
        """
        Load the student, once in a process, whichever thread comes first.

        :raises FileNotFoundError: If the folder or the export is not there, and the hub has no such model.
        :raises ValueError: If the folder holds no encoder, or its export is damaged or outdated.
        :raises ImportError: If the package of the backend is missing.
        """
        self._ready()

    def _ready(self) -> Encoder:
        loaded = self._loaded
        if loaded is not None and loaded[0] == os.getpid():
            return loaded[1]
        with self._lock:
            loaded = self._loaded
            if loaded is not None and loaded[0] != os.getpid():  # forked after it was loaded
                abandon(loaded[1])
                loaded = None
            if loaded is None:
                loaded = self._loaded = (os.getpid(), self._load())
            return loaded[1]

    def _load(self) -> Encoder:
        folder = local_folder(self.model, self.revision, self.token.resolve_value() if self.token else None)
        encoder = open_encoder(folder, self.backend, self.precision, self.threads, self._torch_device())
        return replace(encoder, encode=lru_cache(self.cache_size)(encoder.encode)) if self.cache_size else encoder

    def _torch_device(self) -> str | None:
        if self.device is None and (self.backend != "torch" or self.precision == "int8"):  # which run on the CPU
            return None
        return ComponentDevice.resolve_device(self.device).to_torch_str()

    @component.output_types(embedding=list[float])
    def run(self, text: str) -> dict[str, list[float]]:
        """
        Embed a query.

        :param text: The query, without any prefix.
        :returns: `embedding`: the vector, as long as those in the index.
        :raises ValueError: If the query is empty.
        :raises TypeError: If the query is not a string.
        """
        _check(text)
        return {"embedding": self._ready().encode(text).tolist()}

    @component.output_types(embedding=list[float])
    async def run_async(self, text: str) -> dict[str, list[float]]:
        """
        Embed a query in a worker thread.

        :param text: The query, without any prefix.
        :returns: `embedding`: the vector, as long as those in the index.
        :raises ValueError: If the query is empty.
        :raises TypeError: If the query is not a string.
        """
        return await asyncio.to_thread(self.run, text)

    def run_batch(self, texts: list[str]) -> dict[str, list[list[float]]]:
        """
        Embed many queries at once; each vector is what `run` makes of it alone.

        :param texts: The queries, without any prefix.
        :returns: `embeddings`: one vector a query, in their order.
        :raises ValueError: If there is no query, or an empty one.
        :raises TypeError: If a query is not a string.
        """
        if not texts:
            msg = "There are no queries to embed."
            raise ValueError(msg)
        for text in texts:
            _check(text)
        return {"embeddings": self._ready().encode_batch(texts).tolist()}

    def close(self) -> None:
        """Let go of the model."""
        with self._lock:
            self._loaded = None


def _renew_locks() -> None:
    """A lock that another thread held when the process was forked is held for ever in the child."""
    for encoder in _ENCODERS:
        encoder._lock = Lock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_renew_locks)


def _check(text: Any) -> None:
    if not isinstance(text, str):
        msg = f"KaleQueryEncoder embeds queries, which are strings, and got {type(text).__name__}."
        raise TypeError(msg)
    if not text.strip():
        msg = "The query is empty: KaleQueryEncoder needs some text to embed."
        raise ValueError(msg)
