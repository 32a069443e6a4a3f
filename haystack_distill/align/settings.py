"""What is wanted of a student, and the faults of it that can be known without the encoder."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from haystack_distill.align.layers import named_layers
from haystack_distill.align.training import TrainingSettings
from haystack_distill.losses.table import ALIGNMENT
from haystack_distill.losses.weights import checked_weights
from haystack_distill.students.bi_encoder import BiEncoder
from haystack_distill.students.cutting import find_stack

DEFAULT_LOSS = {"mse": 1.0, "index_ranking": 2.0}

FITS = ("trained", "ridge")
"""How a student is fitted: step by step, or, of token tables alone, in closed form."""


@dataclass(frozen=True)
class KaleSettings:
    """
    What is wanted of the student.

    :param student: Another encoder that is to search the index, folder or hub name; all of it stays, and a linear map
        into the index's space is put behind it. None cuts the encoder of the index.
    :param student_prefix: Put before every query of the student; None takes its own prompt.
    :param update: A student that is to learn what came into its index since: layers and fit stay as they are.
    :param layers: How many layers stay; 0 asks for a token table. None stands for 2.
    :param keep: The numbers of the layers that stay, or `kale` for the paper's; None searches for the best.
    :param temperature: Divides the vectors in the `kale` loss.
    :param folded: Whether dropped lower layers are folded into the token embeddings.
    :param fit: Of `FITS`; `ridge` solves for a token table (`align.ridge`), or for the map alone. None stands for
        `trained`, and for `ridge` where there is a `student`.
    :param index_text: Whether text of the index is aligned on, besides given queries.
    :param passage_weight: How far the target of a sentence of the index is moved from the teacher's vector to that of
        the passage it stands in: from 0, the teacher alone, to below 1.
    :param max_texts: The most texts to align on.
    :raises ValueError: If a loss or fit is not known, a weight or the temperature is out of bounds, or layers are asked
        for that can't be had in closed form or of another encoder.
    """

    layers: int | None = None
    keep: tuple[int, ...] | str | None = None
    loss: Mapping[str, float] = field(default_factory=lambda: dict(DEFAULT_LOSS))
    temperature: float = 1.0
    folded: bool = True
    index_text: bool = True
    passage_weight: float = 0.2
    max_texts: int = 50_000
    fit: str | None = None
    student: str | None = None
    student_prefix: str | None = None
    update: str | None = None
    training: TrainingSettings = field(default_factory=TrainingSettings)

    def __post_init__(self) -> None:
        """Check what can be checked without the encoder; weights from YAML may still be strings."""
        object.__setattr__(self, "loss", checked_weights(self.loss, ALIGNMENT))
        if not self.temperature > 0:
            msg = f"temperature must be above 0, not {self.temperature}."
            raise ValueError(msg)
        if not 0 <= self.passage_weight < 1:
            msg = f"passage_weight must be at least 0 and below 1, not {self.passage_weight}."
            raise ValueError(msg)
        if self.update:
            self._check_update()
            return
        if self.student and (self.layers is not None or self.keep is not None):
            msg = f"All layers of the student {self.student} stay: leave `layers` and `keep` out, or the student."
            raise ValueError(msg)
        if self.fit is None:
            object.__setattr__(self, "fit", "ridge" if self.student else "trained")
        if self.layers is None and not self.student:
            object.__setattr__(self, "layers", 2)
        if self.fit not in FITS:
            msg = f"fit={self.fit!r} is not one of {', '.join(map(repr, FITS))}."
            raise ValueError(msg)
        if self.fit == "ridge" and not (self.student or self.is_table):
            msg = f"fit={self.fit!r} solves for a token table: ask for layers=0 without keep, or leave fit out."
            raise ValueError(msg)

    def _check_update(self) -> None:
        given = [name for name in ("layers", "keep", "fit", "student") if getattr(self, name) is not None]
        if given:
            msg = f"{self.update} stays what it is, a table or so many layers: leave `{given[0]}` out, or `update`."
            raise ValueError(msg)

    @property
    def is_table(self) -> bool:
        """Whether the student is a token table."""
        return self.layers == 0 and self.keep is None

    def kept(self, teacher: BiEncoder) -> tuple[int, ...] | None:
        """The layers of the teacher that stay; None if they are to be searched for. A ValueError if they don't fit."""
        return named_layers(self.layers or 0, self.keep, len(find_stack(teacher.model)))
