"""Sparse coding: a bottleneck that infers the code of an image by decoding it, from few atoms of a dictionary."""

import math

import torch
from torch import Tensor, nn

from aetrain.model.bottlenecks import Bottleneck
from aetrain.model.codes import Code
from aetrain.model.layers import AfterStepHook, TiedLinear


class Dictionary(nn.Linear, AfterStepHook):
    """A linear layer whose rows, the atoms, have length one; otherwise atoms grow and codes shrink without limit."""

    @torch.no_grad()
    def after_optimizer_step(self) -> None:
        """Scale every atom to length one."""
        self.weight.div_(self.weight.norm(dim=1, keepdim=True).clamp_min(torch.finfo(self.weight.dtype).tiny))


class SparseCoding(Bottleneck):
    """z = argmin_z 1/2 |x - c - z W|^2 + weight * |z|_1, with W [D, F] the tied decoder's atoms and c its bias.

    Olshausen & Field (1996), eq. 2-4 with |z| as the cost. z is computed by `steps` of FISTA (Beck & Teboulle 2009,
    eq. 4.1-4.3), without a gradient. The decoder shares the atoms and learns them: the optimizer minimises its error
    with the codes fixed. Codes and dictionary thus alternate, batch by batch. `positive` allows no negative code
    (Hoyer 2002).
    """

    def __init__(
        self, in_features: int, code_dim: int, weight: float = 0.1, steps: int = 50, positive: bool = False
    ) -> None:
        super().__init__(in_features, code_dim)
        if weight < 0:
            raise ValueError(f"weight={weight} is negative: use 0 or more")
        if steps < 1:
            raise ValueError(f"steps={steps} finds no code: use 1 or more")
        self.weight = weight
        self.steps = steps
        self.positive = positive
        self.project = Dictionary(in_features, code_dim)
        self.project.bias.requires_grad_(False).zero_()  # the inference uses the decoder's bias instead
        self._decoder: tuple[TiedLinear, ...] = ()  # the tuple keeps the layer from being registered here

    def set_decoder_layer(self, layer: nn.Module) -> None:
        """Set the layer with the atoms; a layer that is not tied leaves the bottleneck without one."""
        if isinstance(layer, TiedLinear):
            self._decoder = (layer,)

    @torch.no_grad()
    def forward(self, features: Tensor) -> Code:
        """Return the code of features [B, F]; raise ValueError where the decoder is not tied."""
        if not self._decoder:
            raise ValueError(
                "SparseCoding finds a code for the atoms that decode it: use model=sparse_coding, "
                "or another dense model with model.tied=true"
            )
        atoms = self.project.weight  # [D, F]
        return Code(z=self.infer((features - self._decoder[0].bias) @ atoms.t(), atoms @ atoms.t()))

    def infer(self, correlations: Tensor, gram: Tensor) -> Tensor:
        """Return the codes z [B, D] by FISTA.

        `correlations` [B, D] are the dot products of images and atoms, `gram` [D, D] those of atoms and atoms.
        """
        step = 1 / torch.linalg.eigvalsh(gram)[-1].clamp_min(torch.finfo(gram.dtype).eps)
        z = torch.zeros_like(correlations)  # [B, D]
        extrapolated, momentum = z, 1.0
        for _ in range(self.steps):
            gradient = extrapolated @ gram - correlations
            previous_z, z = z, self._shrink(extrapolated - step * gradient, step * self.weight)
            previous_momentum, momentum = momentum, (1 + math.sqrt(1 + 4 * momentum**2)) / 2
            extrapolated = z + (previous_momentum - 1) / momentum * (z - previous_z)
        return z

    def _shrink(self, z: Tensor, threshold: Tensor) -> Tensor:
        """Return z [B, D] after soft thresholding, the proximal step of the L1 cost."""
        return (z - threshold).clamp_min(0) if self.positive else z.sign() * (z.abs() - threshold).clamp_min(0)
