"""The contractive penalty: the sensitivity of the code to changes of the pixels."""

from typing import Unpack

import torch
from torch import Tensor

from aetrain.model.autoencoder import Autoencoder
from aetrain.model.records import Forward
from aetrain.objective.jacobian import check_probes, squared_jacobian_norm
from aetrain.objective.penalties import Penalty, make_generator
from aetrain.objective.weight_schedule import WeightSettings


class Contractive(Penalty):
    """||J||_F^2 = sum_ij (dz_j / dx_i)^2 per image, J the Jacobian of the code with respect to the encoder's input.

    Rifai et al. (2011), "Contractive auto-encoders", eq. 1. It is computed by autograd, and thus for any encoder of any
    depth. Of a random code it takes the mean.

    With `probes: null` it is exact, at the cost of one backward pass per unit of the code. With n probes it is the mean
    of ||v J||^2 over n random sign vectors v, which has the same expectation, as E[v^T v] = I (Hutchinson 1990).
    Evaluation draws the same vectors each time.
    """

    description = "squared Frobenius norm of the code's Jacobian with respect to the pixels"

    def __init__(self, weight: float = 1.0, probes: int | None = None, **schedule: Unpack[WeightSettings]) -> None:
        super().__init__(weight, **schedule)
        self.probes = check_probes(probes)

    def forward(self, model: Autoencoder, out: Forward) -> Tensor:
        """Return the squared norm, or its estimate, [B]; 0 where the code is inferred without a gradient."""
        create_graph = torch.is_grad_enabled()
        with torch.enable_grad():  # also in evaluation, because the penalty itself is a derivative
            x = out.x_in.detach().requires_grad_()
            z = model.mean_code(x)  # [B, D]
            if not z.requires_grad:  # as in sparse coding
                return z.new_zeros(len(x))
            generator = make_generator(model, z.device, seed=0)
            return squared_jacobian_norm(z, x, self.probes, generator, create_graph)
