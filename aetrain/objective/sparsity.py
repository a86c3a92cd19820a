"""The kinds of sparse code, each said as what it adds: an activation, a sparsifier behind it, penalties."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from torch import nn

from aetrain.model.layers import Activation, TopK, WinnerTakeAll
from aetrain.objective.penalties import L1, KLSparsity, Penalty


@dataclass(frozen=True)
class Sparsity:
    """What a sparse code needs. By default nothing, which costs nothing."""

    sparsifier: nn.Module = field(default_factory=nn.Identity)
    code_activation: Activation | None = None  # the only one that goes with it, if there is one
    penalties: Mapping[str, Penalty] = field(default_factory=dict)


def none() -> Sparsity:
    """A code as the model makes it."""
    return Sparsity()


def kl(target: float, weight: float) -> Sparsity:
    """Sigmoid units that are each active at the target rate on average."""
    return Sparsity(code_activation="sigmoid", penalties={"sparsity": KLSparsity(target, weight)})


def l1(weight: float, layers: Literal["code", "hidden"] = "code") -> Sparsity:
    """Activations that cost their absolute value."""
    return Sparsity(penalties={"sparsity": L1(weight, layers)})


def topk(k: int, start: int | None = None, anneal: float = 0.5) -> Sparsity:
    """Exactly k units active; in training more at first, where `start` says so."""
    return Sparsity(sparsifier=TopK(k, start, anneal))


def wta(rate: float) -> Sparsity:
    """Rectified units that are each active for that share of the images of a training batch."""
    return Sparsity(sparsifier=WinnerTakeAll(rate), code_activation="relu")
