"""
The few heads that find the evidence: choosing, keeping and showing them.

Most heads of a language model look elsewhere than at the passage that answers the question; a mean over all of them is
a poor teacher. Heads are chosen on some tens of questions whose right passage is known, or believed to be known:

- `core` (CoRe, arXiv 2510.02219): the share of the right passage in a softmax over the passages' attention,
  exp(s+ / t) / sum exp(s / t), averaged over examples: heads that tell the right passage from the others.
- `qr` (QRHead, arXiv 2506.09944): the mean attention that the right passage gets.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from io import StringIO
from pathlib import Path

import numpy as np

from haystack_distill.files.folders import write_json
from haystack_distill.files.runs import fingerprint
from haystack_distill.files.shapes import read_json

METHODS = ("core", "qr")
TEMPERATURE = 1.0
"""For attention that is scaled to a mean of 1 a passage: heads differ in how much they look at passages at all."""

MIN_EXAMPLES = 8


@dataclass(frozen=True)
class Heads:
    """Chosen heads of a model, the scores `[layers][heads]` they were chosen by, and on how many examples."""

    model: str
    method: str
    chosen: list[tuple[int, int]]
    scores: list[list[float]]
    examples: int

    @property
    def layers(self) -> frozenset[int]:
        """The layers that have a chosen head; those after the last of them need not be computed."""
        return frozenset(layer for layer, _ in self.chosen)

    @property
    def fingerprint(self) -> str:
        """Changes with the choice."""
        return fingerprint(sorted(self.chosen), 16)

    def pick(self, attention: np.ndarray) -> np.ndarray:
        """`[layers, heads, tokens]`, of the layers in `layers`, becomes `[chosen, tokens]`."""
        place = {layer: number for number, layer in enumerate(sorted(self.layers))}
        return np.stack([attention[place[layer], head] for layer, head in self.chosen])

    def check_belongs_to(self, model: str, layers: int) -> None:
        """Refuse, with a ValueError, heads that were chosen for another model."""
        if len(self.scores) != layers or (model and self.model and Path(model).name != Path(self.model).name):
            msg = (
                f"These heads were chosen for {self.model} ({len(self.scores)} layers), not for {model} ({layers} "
                "layers): choose heads of this model."
            )
            raise ValueError(msg)

    def save(self, file: str | Path) -> None:
        """Write the choice as a `.json` file, and beside it, as `.svg`, a picture of all heads, layer by head."""
        path = Path(file)
        path.parent.mkdir(parents=True, exist_ok=True)
        write_json(path, asdict(self))
        path.with_suffix(".svg").write_text(self.picture(), encoding="utf-8")

    @classmethod
    def load(cls, file: str | Path) -> "Heads":
        """Read what `save` wrote; a FileNotFoundError if it is missing, a ValueError if it is no such file."""
        path = Path(file)
        if not path.is_file():
            msg = f"The heads {path} are missing: choose them first, with select_heads or `haystack-distill heads`."
            raise FileNotFoundError(msg)
        heads: Heads = read_json(path, cls, "it does not hold chosen heads; choose them again.")
        return heads

    def picture(self) -> str:
        """An SVG of the scores of all heads, layer by head, the chosen ones framed."""
        from matplotlib.figure import Figure
        from matplotlib.patches import Rectangle

        scores = np.array(self.scores)
        figure = Figure(figsize=(1.5 + 0.28 * scores.shape[1], 1.2 + 0.18 * scores.shape[0]), layout="constrained")
        axes = figure.add_subplot()
        image = axes.imshow(scores, aspect="auto", cmap="Blues", interpolation="nearest")
        for layer, head in self.chosen:
            axes.add_patch(Rectangle((head - 0.5, layer - 0.5), 1, 1, fill=False, edgecolor="#d1495b", linewidth=1.5))
        axes.set(xlabel="head", ylabel="layer", title=f"{self.method}, {self.examples} questions")
        figure.colorbar(image, ax=axes)
        drawn = StringIO()
        figure.savefig(drawn, format="svg", metadata={"Date": None})
        return drawn.getvalue()


@dataclass(frozen=True)
class HeadExample:
    """The attention that each passage gets from each head, `[layers, heads, passages]`, and which passage is right."""

    attention: np.ndarray
    right: int


def select_heads(
    examples: Sequence[HeadExample],
    *,
    model: str,
    method: str = "core",
    count: int = 8,
    temperature: float = TEMPERATURE,
) -> Heads:
    """
    Choose heads.

    :param examples: At least eight, better 32 to 256; they may be labelled by another teacher.
    :param method: `core` or `qr`.
    :param temperature: Divides the attention of `core`, after it was scaled to a mean of 1 a passage.
    :raises ValueError: If there are too few examples or heads, or there is no such method.
    """
    if method not in METHODS:
        msg = f"There is no method {method!r} of choosing heads: {' or '.join(METHODS)}."
        raise ValueError(msg)
    usable = [example for example in examples if example.attention.shape[2] > 1]
    if len(usable) < MIN_EXAMPLES:
        msg = (
            f"{len(usable)} questions with two passages or more are too few to choose heads on: at least "
            f"{MIN_EXAMPLES} are needed."
        )
        raise ValueError(msg)
    layers, heads, _ = usable[0].attention.shape
    if not 1 <= count <= layers * heads:
        msg = f"count={count} heads can't be chosen of {layers * heads}."
        raise ValueError(msg)
    of_right = [example.attention[:, :, example.right] for example in usable]
    score = np.mean([_share(example, temperature) for example in usable] if method == "core" else of_right, axis=0)
    best = np.argsort(-score, axis=None, kind="stable")[:count]
    chosen = [(int(place) // heads, int(place) % heads) for place in best]
    return Heads(model, method, chosen, score.tolist(), len(usable))


def _share(example: HeadExample, temperature: float) -> np.ndarray:
    """The right passage's share in a softmax over passages, `[layers, heads]`; heads differ in how much they look."""
    scale = np.abs(example.attention).mean(2, keepdims=True)
    logits = example.attention / np.where(scale > 0, scale, 1) / temperature
    logits = np.exp(logits - logits.max(2, keepdims=True))
    return logits[:, :, example.right] / logits.sum(2)
