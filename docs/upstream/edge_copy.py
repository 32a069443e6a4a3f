"""
What it costs to pass an embedding from one component to the next, as Haystack is and with edge-copy.patch.

    python docs/upstream/edge_copy.py
"""

import statistics
import time

from haystack import Pipeline, component
from haystack.core.pipeline import base, pipeline, utils

IMMUTABLE = (str, int, float, bool, bytes, complex, type(None))
as_it_is = utils._deepcopy_with_exceptions


def patched(value):
    """What the patch does, without writing to the installed package."""
    return value if type(value) in IMMUTABLE else as_it_is(value)


@component
class Embedder:
    """A constant embedding."""

    def __init__(self, dim: int) -> None:
        self.embedding = [0.1] * dim

    @component.output_types(embedding=list[float])
    def run(self, text: str):
        """Embed a text."""
        return {"embedding": self.embedding}


@component
class Retriever:
    """Takes an embedding and does nothing."""

    @component.output_types(count=int)
    def run(self, query_embedding: list[float]):
        """Count."""
        return {"count": len(query_embedding)}


def use(copy) -> None:
    """Make Haystack copy with a function; it calls itself by the name in `utils`."""
    for module in (utils, base, pipeline):
        module._deepcopy_with_exceptions = copy


def main() -> None:
    """Print medians of 200 runs, taken in turn."""
    print("dimensions  as it is (ms)  patched (ms)  ratio")
    for dim in (384, 768, 1024):
        pipe = Pipeline()
        pipe.add_component("embedder", Embedder(dim))
        pipe.add_component("retriever", Retriever())
        pipe.connect("embedder.embedding", "retriever.query_embedding")
        times: dict[str, list[float]] = {"as it is": [], "patched": []}
        for _ in range(200):
            for name, copy in (("as it is", as_it_is), ("patched", patched)):
                use(copy)
                start = time.perf_counter()
                pipe.run({"embedder": {"text": "a query"}})
                times[name].append(1000 * (time.perf_counter() - start))
        before, after = (statistics.median(values) for values in times.values())
        print(f"{dim:10d}  {before:13.2f}  {after:12.2f}  {before / after:5.1f}")


if __name__ == "__main__":
    main()
