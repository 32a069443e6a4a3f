"""`haystack-distill check`: whether store, encoder and settings belong together, and how long `align` will take."""

import time
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple

import typer

from haystack_distill.cli import options
from haystack_distill.cli.errors import explained
from haystack_distill.cli.machines import Failed
from haystack_distill.cli.shared import plain_table, say, show

if TYPE_CHECKING:
    from haystack_distill.students.bi_encoder import BiEncoder

SAMPLE = 1000
"""Documents that are looked at."""

FEW = 2000
"""Fewer sentences than these teach little: the student may stay as it was cut."""


class Seen(NamedTuple):
    """What a sample says about all documents; times in seconds."""

    documents: int
    dim: int
    similarity: str
    sentences: list[str]
    reading: float

    @property
    def expected(self) -> int:
        """How many sentences all documents will have."""
        return round(len(self.sentences) * max(1.0, self.documents / SAMPLE))


def check(
    model: options.Model,
    store: Annotated[Path, typer.Option(exists=True, dir_okay=False, help="The YAML of the document store.")],
    folder: Annotated[Path | None, typer.Argument(help="A folder with queries and judgments, if there is one.")] = None,
    layers: Annotated[int, typer.Option(help="How many layers are to stay.")] = 2,
) -> dict[str, Any]:
    """
    Find out in seconds whether a store, an encoder and settings belong together, and how long `align` will take.

    Examples:
      haystack-distill check --store store.yaml --model sentence-transformers/all-MiniLM-L6-v2
      haystack-distill check questions --store store.yaml --model intfloat/e5-small-v2 --layers 0
    """
    with explained():
        from haystack_distill.align.expected import expected_minutes
        from haystack_distill.align.layers import named_layers
        from haystack_distill.align.settings import KaleSettings
        from haystack_distill.cli.indexing import Documents, loaded_encoder
        from haystack_distill.data.beir import judged_documents
        from haystack_distill.students.cutting import find_stack
        from haystack_integrations.components.distill.stores import vectors_of

        documents, encoder = Documents.of(folder, store), loaded_encoder(model)
        depth = len(find_stack(encoder.model))
        named_layers(layers, None, depth)
        seen = _seen(documents.store, encoder)
        learnt = min(seen.expected, KaleSettings.max_texts)
        reading = seen.documents * seen.reading / 60
        minutes = reading + expected_minutes(encoder, seen.sentences, learnt, layers)
        judged = set(judged_documents(folder))
        found = vectors_of(documents.store, sorted(judged)).keys()
    few = seen.expected < FEW
    facts = {
        "documents": seen.documents,
        "dimensions": seen.dim,
        "similarity": seen.similarity,
        "vectors": f"made by {model}",
        "sentences": f"about {seen.expected:,}{', which is few' if few else ''}",
        "judged documents": f"{len(found)} of {len(judged)} are there" if folder else "none given",
        "align will take": f"about {max(1, round(minutes))} minutes",
    }
    result = {**seen._asdict(), "sentences": seen.expected, "minutes": minutes, "judged": len(judged)}
    result["missing"] = sorted(judged - found)
    show(plain_table(facts))
    if judged - found:
        say(f"Not in the store: {min(judged - found)!r} and {len(judged - found) - 1} more. `judgments` can find them.")
        raise Failed(result)
    if few:
        say("With so few texts the student may stay as it was cut; look at the interval that align prints.")
    place = f"{folder} " if folder else ""
    say(f"Next: haystack-distill align {place}--store {store} --model {model} --layers {layers} --output NEW_FOLDER")
    return result


def _seen(store: Any, encoder: "BiEncoder") -> Seen:
    """Look at the first documents; a ValueError if the encoder did not make their vectors."""
    from haystack_distill.data.index import read_index
    from haystack_distill.data.sentences import index_sentences
    from haystack_integrations.components.distill.stores.opening import filled_pages_of, verified_similarity

    started = time.perf_counter()
    page = next(filled_pages_of(store))[:SAMPLE]
    reading = (time.perf_counter() - started) / len(page)
    with TemporaryDirectory() as place:
        index = read_index([page], Path(place) / "index", lambda vectors: verified_similarity(store, vectors))
        encoder.check_belongs_to(index)
        return Seen(store.count_documents(), index.dim, index.similarity, list(index_sentences(index.texts)), reading)
