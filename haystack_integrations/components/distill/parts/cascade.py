"""Encoders in order of cost before one index: which of them answers a query, and what is known of that."""

import logging
from collections import Counter, deque
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from haystack import Document, tracing
from pydantic import Field
from typing_extensions import TypedDict

from haystack_distill.data.beir import Qrels
from haystack_distill.evaluation.sureness import SIGNAL, Signal, sureness
from haystack_distill.files.folders import write_json
from haystack_distill.files.shapes import read_json
from haystack_integrations.components.distill.parts.similarity_guard import made_for_index
from haystack_integrations.components.distill.parts.tracing import span

if TYPE_CHECKING:  # it takes a second to import, which no query needs
    from haystack_distill.evaluation.calibration import Target

logger = logging.getLogger(__name__)

FILE = "cascade.json"
"""Where thresholds are kept, in the folder of the first encoder."""

ANSWERED_BY, SCORE, FAILED = "answered_by", "answer_score", "answer_failed"
"""Keys of a document's meta: which encoder found it, its best score for the query, and which encoder had failed."""


class Kept(TypedDict):
    """What the file holds, as far as serving reads it: see `calibration.Thresholds`."""

    encoders: list[str]
    distances: bool
    signal: Signal
    values: list[float]
    sent: Annotated[list[float], Field(min_length=1)]


WINDOW, ENOUGH = 500, 100
"""Over how many queries the share that is sent on is watched, and from how many on it tells anything."""


class Cascade:
    """
    The encoders, where each sends a query on, and how often it did.

    :param encoders: In order of cost.
    :param file: Where the thresholds are; None is `cascade.json` in the folder of the first encoder.
    """

    def __init__(self, encoders: Sequence[Any], file: str | None) -> None:
        self.encoders = encoders
        self.names = _names(encoders)
        self.file = Path(file) if file else Path(str(getattr(encoders[0], "model", ""))) / FILE
        self.answered: Counter[str] = Counter()
        self._thresholds: list[float] | None = None
        self._distances = False
        self._expected = 0.0
        self._sent: deque[bool] = deque(maxlen=WINDOW)
        self._warned = False

    @property
    def ready(self) -> bool:
        """Whether the thresholds are there."""
        return self._thresholds is not None

    def load(self) -> None:
        """
        Read the thresholds, once.

        :raises FileNotFoundError: If there are none.
        :raises ValueError: If the file is damaged or for other encoders, or encoders are for different indexes.
        """
        if self.ready:
            return
        self.check_one_index()
        if not self.file.is_file():
            msg = (
                f"{self.file} is missing, and so are the thresholds of this cascade: run `haystack-distill calibrate` "
                "with its pipeline, or call `calibrate` of the DistilledRetriever."
            )
            raise FileNotFoundError(msg)
        content = read_json(self.file, Kept, "calibrate the cascade again.")
        if content["encoders"] != self.names:
            encoders = content["encoders"]
            msg = f"{self.file} was calibrated for {encoders}, and the encoders are {self.names}: calibrate again."
            raise ValueError(msg)
        self._distances, self._expected = content["distances"], content["sent"][0]
        self._thresholds = content["values"]

    def calibrated(
        self, query_ids: list[str], found: list[list[list[Document]]], target: "Target", qrels: Qrels | None
    ) -> dict[str, Any]:
        """
        Choose thresholds and write them; they count from now on.

        :param found: What each encoder found for each query.
        :returns: The content of the file, and `file`, where it is.
        """
        from haystack_distill.evaluation.calibration import calibrate

        distances = _are_distances(found)
        runs = [
            {query_id: _scores(documents, distances) for query_id, documents in zip(query_ids, lists, strict=True)}
            for lists in found
        ]
        chosen = calibrate(runs, target, qrels)
        content = {"encoders": self.names, "distances": distances, "signal": SIGNAL, **asdict(chosen)}
        write_json(self.file, content)
        self._thresholds = None
        self._sent.clear()
        self._warned = False
        self.load()
        return {**content, "file": str(self.file)}

    def check_one_index(self) -> None:
        """
        Make sure that no two encoders were made for different indexes, as far as their folders say.

        :raises ValueError: If two were.
        """
        made = {
            name: made_for_index(getattr(encoder, "model", None)).get("fingerprint")
            for name, encoder in zip(self.names, self.encoders, strict=True)
        }
        known = {name: fingerprint for name, fingerprint in made.items() if fingerprint}
        if len(set(known.values())) > 1:
            msg = (
                f"The encoders {', '.join(known)} were made for different indexes, so their answers can't stand for "
                "each other: align them with the same documents."
            )
            raise ValueError(msg)

    def suffices(self, step: int, documents: list[Document]) -> bool:
        """Whether what an encoder found is good enough to stop at it; what the first sends on is counted."""
        assert self._thresholds is not None
        enough = sureness(_scores(documents, self._distances).values()) > self._thresholds[step]
        if step == 0:
            self._watch(not enough)
        return enough

    def marked(self, step: int, documents: list[Document], failed: list[str]) -> list[Document]:
        """Say of documents, and to Haystack's tracer, who found them."""
        name, score = self.names[step], next(iter(_scores(documents, self._distances).values()), None)
        self.answered[name] += 1
        said = {ANSWERED_BY: name, SCORE: score, **({FAILED: failed} if failed else {})}
        span = tracing.tracer.current_span()
        if span is not None:
            span.set_tags({f"haystack_distill.{key}": value for key, value in said.items()})
        return [replace(document, meta={**document.meta, **said}) for document in documents]

    def _watch(self, sent: bool) -> None:
        """Warn once when far more queries are sent on than chance explains: by four standard deviations and more."""
        self._sent.append(sent)
        count = len(self._sent)
        usual = count * self._expected
        if self._warned or count < ENOUGH or sum(self._sent) <= usual + 4 * usual**0.5 + 4:
            return
        self._warned = True
        logger.warning(
            "Of the last %d queries %s could not answer %.0f %%, and %.0f %% of those that it was calibrated with: "
            "queries or documents have changed. Align it again with the index as it is, or calibrate the cascade with "
            "queries of these days.",
            count,
            self.names[0],
            100 * sum(self._sent) / count,
            100 * self._expected,
        )


class Asking:
    """
    One query on its way through the encoders; to go over it gives those that have to be asked.

    :param cascade: Its encoders; a single one needs no thresholds and marks nothing.
    """

    def __init__(self, cascade: Cascade) -> None:
        self.cascade = cascade
        self.step = self.answered = 0
        self.vector: Any = None
        self.found: list[Document] | None = None
        self.failed: list[str] = []

    def __iter__(self) -> Iterator[Any]:
        for step, encoder in enumerate(self.cascade.encoders):
            self.step, self.vector = step, None
            yield encoder
            if self.vector is None:
                continue
            self.answered = step
            if not self._is_last and self.cascade.suffices(step, self.found or []):
                return

    @contextmanager
    def encoding(self) -> Iterator[None]:
        """A span for the encoder, which has to set `vector`; an error is raised only where nobody else answers."""
        try:
            with span("encode", encoder=self.cascade.names[self.step]):
                yield
        except Exception as error:
            if self._is_last and self.found is None:
                raise
            name = self.cascade.names[self.step]
            text = "The query encoder %s failed (%s: %s); the answer of another one of the cascade is given."
            logger.warning(text, name, type(error).__name__, error)
            self.failed.append(name)

    def searching(self) -> AbstractContextManager[Any]:
        """A span for the search, which has to set `found`."""
        return span("search", encoder=self.cascade.names[self.step])

    def documents(self) -> list[Document]:
        """What the last encoder that answered found; marked, if there are several."""
        found = self.found or []
        return found if len(self.cascade.encoders) == 1 else self.cascade.marked(self.answered, found, self.failed)

    @property
    def _is_last(self) -> bool:
        return self.step == len(self.cascade.encoders) - 1


def _scores(documents: list[Document], distances: bool) -> dict[str, float]:
    """Id -> score, higher where it is better."""
    return {document.id: (-1 if distances else 1) * (document.score or 0.0) for document in documents}


def _are_distances(found: list[list[list[Document]]]) -> bool:
    """Whether a store's scores are smaller where they are better: its first document then has the smallest."""
    pairs = [(one[0].score or 0.0, one[-1].score or 0.0) for lists in found for one in lists if len(one) > 1]
    return sum(first < last for first, last in pairs) > sum(first > last for first, last in pairs)


def _names(encoders: Sequence[Any]) -> list[str]:
    """What encoders are called: their folder or model, or their class; with a number where two are called alike."""
    models = [getattr(encoder, "model", None) or type(encoder).__name__ for encoder in encoders]
    names = [Path(model).name if isinstance(model, str | Path) else type(model).__name__ for model in models]
    return [name if names.count(name) == 1 else f"{name} ({number})" for number, name in enumerate(names, start=1)]
