"""The kinds of sparse code: each adds an activation of the code, a sparsifier after it, or penalties."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal, Unpack

from torch import nn

from aetrain.model.layers import Activation, TopK, WinnerTakeAll
from aetrain.objective.penalties import L1, KLSparsity, Penalty
from aetrain.objective.weight_schedule import WeightSettings


@dataclass(frozen=True)
class Sparsity:
    """The components that a sparse code adds to a model. The defaults add nothing."""

    sparsifier: nn.Module = field(default_factory=nn.Identity)
    code_activation: Activation | None = None  # the only activation that fits; None where the model's own fits
    penalties: Mapping[str, Penalty] = field(default_factory=dict)


def none() -> Sparsity:
    """Return no component: the code is the model's."""
    return Sparsity()


def kl(target: float, weight: float, **schedule: Unpack[WeightSettings]) -> Sparsity:
    """Return sigmoid units with a penalty on the distance of each unit's mean activation from `target`."""
    return Sparsity(code_activation="sigmoid", penalties={"sparsity": KLSparsity(target, weight, **schedule)})


def l1(weight: float, layers: Literal["code", "hidden"] = "code", **schedule: Unpack[WeightSettings]) -> Sparsity:
    """Return a penalty on the absolute activations of the code or of the hidden layers."""
    return Sparsity(penalties={"sparsity": L1(weight, layers, **schedule)})


def topk(k: int, start: int | None = None, anneal: float = 0.5, eval_k: int | None = None) -> Sparsity:
    """Return a sparsifier that keeps exactly k units; early in training `start`, in evaluation `eval_k`."""
    return Sparsity(sparsifier=TopK(k, start, anneal, eval_k))


def wta(rate: float) -> Sparsity:
    """Return rectified units that are each active for a share `rate` of the images of a training batch."""
    return Sparsity(sparsifier=WinnerTakeAll(rate), code_activation="relu")
