"""
Another encoder's queries for an index that stays as it is: its vectors, moved into the index's space by a linear map.

The map is ridge regression from the encoder's vectors of texts to what the index's own encoder makes of them, in closed
form. Drift-Adapter (arXiv 2509.23471) has such maps for a change of encoders, fitted from one document vector to the
other; here texts as queries stand beside the documents.
"""

import copy
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer.modules import Dense, Normalize

from haystack_distill.students.bi_encoder import BiEncoder
from haystack_distill.students.cutting import finish

PENALTIES = (0.3, 0.1, 0.03, 0.01)
"""What a squared weight of the map costs, in units of the mean variance of the encoder's dimensions."""


def with_map(encoder: BiEncoder, index_encoder: BiEncoder) -> SentenceTransformer:
    """
    Put a map behind an encoder that ends in the space of an index; it maps all to nothing until it is `set_map`.

    :param encoder: The encoder whose queries are to search the index; it is left as it is.
    :param index_encoder: The encoder that made the index.
    """
    student = copy.deepcopy(encoder.model).float()
    finish(student, encoder)
    mapping = Dense(encoder.dim, index_encoder.dim, bias=True, activation_function=torch.nn.Identity())
    torch.nn.init.zeros_(mapping.linear.weight)
    torch.nn.init.zeros_(mapping.linear.bias)
    student.append(mapping.to(student.device))
    if index_encoder.normalize or isinstance(index_encoder.model[-1], Normalize):
        student.append(Normalize())
    return student.eval()


def map_of(student: SentenceTransformer) -> Any:
    """The linear layer of what `with_map` made."""
    return next(module for module in list(student)[::-1] if isinstance(module, Dense)).linear


@torch.no_grad()
def set_map(student: SentenceTransformer, weight: np.ndarray, bias: np.ndarray) -> None:
    """Set the map: `weight` is `[width, dim]`, `bias` `[dim]`."""
    linear = map_of(student)
    linear.weight.copy_(torch.from_numpy(weight.T))
    linear.bias.copy_(torch.from_numpy(bias))


def ridge_maps(
    inputs: np.ndarray, targets: np.ndarray, penalties: Sequence[float] = PENALTIES
) -> dict[float, tuple[np.ndarray, np.ndarray]]:
    """
    Solve for the map with the least squared error, for each penalty.

    With X and Y less their means it is `(X'X / n + penalty * s I) W = X'Y / n`, where `s` is the mean variance of the
    columns of X.

    :param inputs: X, `[texts, width]`.
    :param targets: Y, `[texts, dim]`.
    :returns: Penalty -> weight, `[width, dim]`, and bias, `[dim]`.
    """
    middle, wanted = inputs.mean(0, dtype=np.float64), targets.mean(0, dtype=np.float64)
    left, right = inputs - middle, targets - wanted
    variances, axes = np.linalg.eigh(left.T @ left / len(left))
    turned = axes.T @ (left.T @ right / len(left))
    maps = {}
    for penalty in penalties:
        weight = axes @ (turned / (variances.clip(0) + penalty * variances.mean())[:, None])
        maps[penalty] = weight.astype(np.float32), (wanted - middle @ weight).astype(np.float32)
    return maps
