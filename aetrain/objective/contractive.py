"""The contractive penalty: the sensitivity of the code to changes of the pixels."""

import torch
from torch import Tensor

from aetrain.model.autoencoder import Autoencoder
from aetrain.model.records import Forward
from aetrain.objective.penalties import Penalty

MAX_JACOBIAN_ELEMENTS = 2**24  # of the part of a batch's Jacobian that is computed at a time


class Contractive(Penalty):
    """||J||_F^2 = sum_ij (dz_j / dx_i)^2 per image, J the Jacobian of the code with respect to the encoder's input.

    Rifai et al. (2011), "Contractive auto-encoders", eq. 1. It is computed by autograd, and thus for any encoder of any
    depth. Of a random code it takes the mean.

    With `probes: null` it is exact, at the cost of one backward pass per unit of the code. With n probes it is the mean
    of ||v J||^2 over n random sign vectors v, which has the same expectation, as E[v^T v] = I (Hutchinson 1990).
    Evaluation draws the same vectors each time.
    """

    def __init__(self, weight: float = 1.0, probes: int | None = None) -> None:
        super().__init__(weight)
        if probes is not None and probes < 1:
            raise ValueError(f"probes={probes} measures nothing: use 1 or more, or null for the exact norm")
        self.probes = probes

    def forward(self, model: Autoencoder, out: Forward) -> Tensor:
        """Return the squared norm, or its estimate, [B]; 0 where the code is inferred without a gradient."""
        needs_gradient = torch.is_grad_enabled()
        with torch.enable_grad():  # also in evaluation, because the penalty itself is a derivative
            x = out.x_in.detach().requires_grad_()
            z = model.mean_code(x)  # [B, D]
            total = z.new_zeros(len(x))
            if not z.requires_grad:  # as in sparse coding
                return total
            rows_at_once = max(1, MAX_JACOBIAN_ELEMENTS // x.numel())
            for rows in self._left_factors(z, model.training).split(rows_at_once):
                (products,) = torch.autograd.grad(
                    z, x, rows, retain_graph=True, create_graph=needs_gradient, is_grads_batched=True
                )  # [K, B, C, H, W]
                total = total + products.square().flatten(2).sum((0, 2))
        return total if self.probes is None else total / self.probes  # [B]

    def _left_factors(self, z: Tensor, training: bool) -> Tensor:
        """Return the vectors [K, B, D] that multiply the Jacobian from the left: unit vectors or sign vectors."""
        if self.probes is None:
            return torch.eye(z.shape[1], device=z.device, dtype=z.dtype)[:, None].expand(-1, len(z), -1)
        generator = None if training else torch.Generator(z.device).manual_seed(0)
        signs = torch.randint(2, (self.probes, *z.shape), generator=generator, device=z.device)
        return signs.to(z.dtype).mul_(2).sub_(1)
