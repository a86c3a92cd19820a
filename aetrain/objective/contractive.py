"""The contractive penalty: how much the code moves when the pixels do."""

import torch
from torch import Tensor

from aetrain.model.autoencoder import Autoencoder
from aetrain.model.records import Forward
from aetrain.objective.penalties import Penalty

AT_ONCE = 2**24  # numbers of a Jacobian that are held at a time


class Contractive(Penalty):
    """||J||_F^2 = sum_ij (dz_j / dx_i)^2 per image, J the Jacobian of the code with respect to what the encoder saw.

    Rifai et al. (2011), "Contractive auto-encoders", eq. 1; differentiated by autograd, so for any encoder of any
    depth. A random code is taken at its mean.

    With `probes: null` it is exact, at the price of one backward pass a unit of the code. With n probes it is the mean
    of ||v J||^2 over n random sign vectors v, which has the same expectation, as E[v^T v] = I (Hutchinson 1990). In
    evaluation the same vectors are drawn each time.
    """

    def __init__(self, weight: float = 1.0, probes: int | None = None) -> None:
        super().__init__(weight)
        if probes is not None and probes < 1:
            raise ValueError(f"probes={probes} measures nothing: use 1 or more, or null for the exact norm")
        self.probes = probes

    def forward(self, model: Autoencoder, out: Forward) -> Tensor:
        learning = torch.is_grad_enabled()
        with torch.enable_grad():  # evaluation runs without gradients, but this is one
            x = out.x_in.detach().requires_grad_()
            z = model.mean_code(x)  # [B, D]
            total = z.new_zeros(len(x))
            if not z.requires_grad:  # a code that is found without a gradient, as in sparse coding
                return total
            for rows in self._rows(z, model.training).split(max(1, AT_ONCE // x.numel())):
                (moved,) = torch.autograd.grad(
                    z, x, rows, retain_graph=True, create_graph=learning, is_grads_batched=True
                )  # [K, B, C, H, W]
                total = total + moved.square().flatten(2).sum((0, 2))
        return total if self.probes is None else total / self.probes  # [B]

    def _rows(self, z: Tensor, training: bool) -> Tensor:
        """What the Jacobian is multiplied with from the left, [K, B, D]."""
        if self.probes is None:
            return torch.eye(z.shape[1], device=z.device, dtype=z.dtype)[:, None].expand(-1, len(z), -1)
        generator = None if training else torch.Generator(z.device).manual_seed(0)
        signs = torch.randint(2, (self.probes, *z.shape), generator=generator, device=z.device)
        return signs.to(z.dtype).mul_(2).sub_(1)
