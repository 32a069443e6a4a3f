"""Which layers stay: candidates are cut and folded, and ranked by how well they retrieve without training."""

from collections.abc import Callable
from dataclasses import dataclass, field

from sentence_transformers import SentenceTransformer
from torch import Tensor

from haystack_distill.students.bi_encoder import BiEncoder
from haystack_distill.students.cutting import KALE_LAYERS, check_depth, check_keep, cut, find_stack, kale_layers
from haystack_distill.students.folding import can_fold, fold, token_states

MAX_CANDIDATES = 40
"""The search stops after this many; at 12 layers it ends before."""

Measure = Callable[[SentenceTransformer], float]
"""How well a student retrieves on a small dev sample, the larger the better."""


@dataclass
class LayerSearch:
    """
    A search over the layers to keep. Its cost grows with the layers that stay, not with those the teacher has.

    It starts from the blocks that end with the last layer and from the bottom-and-top combinations, and goes on from
    the best by exchanging one layer at a time until no exchange helps.

    :param texts: Texts to fold the dropped lower layers over.
    :param tokens: The tokens that the measure needs; others are not folded.
    :param scores: What has been measured: layers -> score.
    """

    teacher: BiEncoder
    measure: Measure
    texts: list[str]
    tokens: set[int]
    scores: dict[tuple[int, ...], float] = field(default_factory=dict)
    _states: dict[int, Tensor] = field(default_factory=dict)

    def best(self, layers: int) -> tuple[int, ...]:
        """
        Find the best layers, at least one, in ascending order.

        :raises ValueError: If the teacher has fewer.
        """
        stack = find_stack(self.teacher.model)
        depth = len(stack)
        check_depth(layers, depth)
        if layers == depth:
            return tuple(range(depth))
        for candidate in starting_points(depth, layers):
            self._score(candidate)
        best = max(self.scores, key=self.scores.__getitem__)
        improved = True
        while improved and len(self.scores) < MAX_CANDIDATES:
            improved = False
            for candidate in exchanges(best, depth):
                if len(self.scores) >= MAX_CANDIDATES:
                    break
                if candidate not in self.scores and self._score(candidate) > self.scores[best]:
                    best, improved = candidate, True
                    break
        return best

    def _score(self, keep: tuple[int, ...]) -> float:
        try:
            student = make_layered(self.teacher, keep, self.texts, self.tokens, self._states)
        except ValueError:  # an architecture whose first layer must stay
            self.scores[keep] = float("-inf")
        else:
            self.scores[keep] = self.measure(student)
        return self.scores[keep]


def starting_points(depth: int, layers: int) -> list[tuple[int, ...]]:
    """
    List bottom-and-top combinations, from all at the top to all but one at the bottom, an even spread, the paper's map.
    """
    candidates = [(*range(bottom), *range(depth - layers + bottom, depth)) for bottom in range(layers)]
    if layers > 1:
        candidates.append(tuple(round(number * (depth - 1) / (layers - 1)) for number in range(layers)))
    if layers in KALE_LAYERS.get(depth, {}):
        candidates.append(kale_layers(depth, layers))
    return list(dict.fromkeys(candidates))


def exchanges(keep: tuple[int, ...], depth: int) -> list[tuple[int, ...]]:
    """List all candidates that differ from `keep` in one layer of an encoder of this depth, the nearest first."""
    moves = [(abs(out - into), out, into) for out in keep for into in range(depth) if into not in keep]
    return [tuple(sorted({*keep, into} - {out})) for _, out, into in sorted(moves)]


def make_layered(
    teacher: BiEncoder,
    keep: tuple[int, ...],
    texts: list[str],
    tokens: set[int] | None = None,
    states: dict[int, Tensor] | None = None,
    *,
    folded: bool = True,
) -> SentenceTransformer:
    """
    Cut an encoder and fold the layers that are dropped below the first kept one into its token embeddings.

    :param tokens: The tokens to fold; None is the whole vocabulary.
    :param states: The states of `tokens` by layer, filled and reused from call to call.
    :param folded: False leaves the embeddings as they are, as the KALE paper does.
    """
    keep = check_keep(keep, len(find_stack(teacher.model)))
    student = cut(teacher, keep)
    if folded and keep[0] > 0 and can_fold(find_stack(student)):
        fold(student, teacher, keep[0], _states(teacher, keep[0], texts, tokens, states))
    return student


def _states(
    teacher: BiEncoder, layer: int, texts: list[str], tokens: set[int] | None, known: dict[int, Tensor] | None
) -> Tensor:
    """What is folded. A search keeps the rows of its tokens only: a vocabulary for each layer would fill memory."""
    if tokens is None or known is None:
        return token_states(teacher, layer, texts, tokens).states
    rows = sorted(tokens)
    if layer not in known:
        known[layer] = token_states(teacher, layer, texts, tokens).states[rows]
    model = find_stack(teacher.model).model
    states = known[layer].new_zeros(model.get_input_embeddings().num_embeddings, model.config.hidden_size)
    states[rows] = known[layer]
    return states
