"""The squared norm of a Jacobian, exact or by random projections."""

import torch
from torch import Tensor

from aetrain.utils.shards import Shape, draw

MAX_JACOBIAN_ELEMENTS = 2**24  # of the part of a batch's Jacobian that is computed at a time


def check_probes(probes: int | None) -> int | None:
    """Return a number of random sign vectors, or None for the exact norm. Raise ValueError below 1."""
    if probes is not None and probes < 1:
        raise ValueError(f"probes={probes} measures nothing: use 1 or more, or null for the exact norm")
    return probes


def squared_jacobian_norm(
    outputs: Tensor, inputs: Tensor, probes: int | None, generator: torch.Generator | None, create_graph: bool
) -> Tensor:
    """Return ||J||_F^2 [B] of the Jacobian J of outputs [B, N] with respect to inputs [B, ...], for each image.

    It is exact with `probes` None. With a number of probes it is the mean over as many random sign vectors.
    """
    total = inputs.new_zeros(len(inputs))
    rows_at_once = max(1, MAX_JACOBIAN_ELEMENTS // inputs.numel())
    for rows in _left_factors(outputs, probes, generator).split(rows_at_once):
        (products,) = torch.autograd.grad(
            outputs, inputs, rows, retain_graph=True, create_graph=create_graph, is_grads_batched=True
        )  # [K, B, ...]
        total = total + products.square().flatten(2).sum((0, 2))
    return total if probes is None else total / probes


def _left_factors(outputs: Tensor, probes: int | None, generator: torch.Generator | None) -> Tensor:
    """Return the vectors [K, B, N] that multiply the Jacobian from the left: unit vectors or sign vectors."""
    if probes is None:
        unit_vectors = torch.eye(outputs.shape[1], device=outputs.device, dtype=outputs.dtype)
        return unit_vectors[:, None].expand(-1, len(outputs), -1)

    def make(shape: Shape) -> Tensor:
        return torch.randint(2, tuple(shape), generator=generator, device=outputs.device)

    signs = draw(make, (probes, *outputs.shape), dim=1)
    return signs.to(outputs.dtype).mul_(2).sub_(1)
