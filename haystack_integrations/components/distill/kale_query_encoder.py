# SPDX-FileCopyrightText: 2026-present haystack-distill contributors
#
# SPDX-License-Identifier: Apache-2.0

from pathlib import Path
from threading import Lock
from typing import Any

from haystack import component, default_from_dict, default_to_dict
from haystack.utils import ComponentDevice


@component
class KaleQueryEncoder:
    """
    Embeds queries with a student that `KaleAligner` made, for the index its teacher made.

    A drop-in for `SentenceTransformersTextEmbedder` in query pipelines. The student applies its own prompt and
    normalisation, so there is nothing to set but the folder. Inside a `DistilledRetriever` the vector never crosses a
    pipeline edge, which costs more than a small encoder does.

    ### Usage example

    ```python
    from haystack_distill import KaleQueryEncoder

    encoder = KaleQueryEncoder(model="models/minilm-2-layers")
    embedding = encoder.run(text="How do I merge two dictionaries?")["embedding"]
    ```
    """

    def __init__(self, model: str, device: ComponentDevice | None = None) -> None:
        """
        Create the encoder; the model is loaded by `warm_up` or the first run.

        :param model: Folder of the student.
        :param device: Where it runs; None takes the default device of the machine that loads it.
        """
        self.model = model
        self.device = device
        self._encoder: Any = None
        self._lock = Lock()

    def warm_up(self) -> None:
        """
        Load the student, once, whichever thread comes first.

        :raises FileNotFoundError: If the folder is not there.
        :raises ValueError: If the folder does not hold a sentence-transformers model.
        """
        if self._encoder is not None:
            return
        with self._lock:
            if self._encoder is None:
                self._encoder = self._load()

    def _load(self) -> Any:
        from sentence_transformers import SentenceTransformer

        folder = Path(self.model)
        if not folder.is_dir():
            msg = f"The query encoder {folder} is missing: run the alignment pipeline first, or correct `model`."
            raise FileNotFoundError(msg)
        if not (folder / "modules.json").is_file():
            msg = f"{folder} does not hold a sentence-transformers model (no modules.json in it): correct `model`."
            raise ValueError(msg)
        device = ComponentDevice.resolve_device(self.device).to_torch_str()
        encoder = SentenceTransformer(str(folder), device=device, local_files_only=True)
        return encoder.eval()

    @component.output_types(embedding=list[float])
    def run(self, text: str) -> dict[str, list[float]]:
        """
        Embed a query.

        :param text: The query, without any prefix.
        :returns: `embedding`: the vector, as long as those in the index.
        :raises ValueError: If the query is empty.
        :raises TypeError: If the query is not a string.
        """
        if not isinstance(text, str):
            msg = f"KaleQueryEncoder embeds one query, a string, and got {type(text).__name__}."
            raise TypeError(msg)
        if not text.strip():
            msg = "The query is empty: KaleQueryEncoder needs some text to embed."
            raise ValueError(msg)
        self.warm_up()
        return {"embedding": self._encoder.encode(text, show_progress_bar=False).tolist()}

    @component.output_types(embedding=list[float])
    async def run_async(self, text: str) -> dict[str, list[float]]:
        """
        Embed a query in a worker thread.

        :param text: The query, without any prefix.
        :returns: `embedding`: the vector, as long as those in the index.
        :raises ValueError: If the query is empty.
        :raises TypeError: If the query is not a string.
        """
        import asyncio

        return await asyncio.to_thread(self.run, text)

    def close(self) -> None:
        """Let go of the model."""
        with self._lock:
            self._encoder = None

    def to_dict(self) -> dict[str, Any]:
        """
        Serialise this component.

        :returns: Its type and init parameters.
        """
        device = self.device.to_dict() if self.device else None
        return default_to_dict(self, model=self.model, device=device)

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> "KaleQueryEncoder":
        """
        Restore this component.

        :param data: What `to_dict` returned.
        :returns: The component.
        """
        parameters = data.get("init_parameters", {})
        if isinstance(parameters.get("device"), dict):
            parameters["device"] = ComponentDevice.from_dict(parameters["device"])
        return default_from_dict(cls, data)
