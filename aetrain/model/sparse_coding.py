"""Sparse coding: a bottleneck that finds the code of a picture by decoding it, from few atoms of a dictionary."""

import math

import torch
from torch import Tensor, nn

from aetrain.model.bottlenecks import Bottleneck
from aetrain.model.layers import Settled, TiedLinear
from aetrain.model.records import Code


class Dictionary(nn.Linear, Settled):
    """A linear layer whose rows, the atoms, have length one: else they grow and the codes shrink without end."""

    @torch.no_grad()
    def settle(self) -> None:
        self.weight.div_(self.weight.norm(dim=1, keepdim=True).clamp_min(torch.finfo(self.weight.dtype).tiny))


class SparseCoding(Bottleneck):
    """z = argmin_z 1/2 |x - c - z W|^2 + weight * |z|_1, with W [D, F] the tied decoder's atoms and c its bias.

    Olshausen & Field (1996), eq. 2-4 with |z| as the cost. Found by `steps` of FISTA (Beck & Teboulle 2009, eq.
    4.1-4.3), without a gradient: the decoder, which shares the atoms, learns them as the optimizer descends the
    error of its pictures, with the codes held. So codes and dictionary alternate, batch by batch. `positive` allows
    no negative code (Hoyer 2002).
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
        self.project.bias.requires_grad_(False).zero_()  # the inference has the decoder's
        self._decoder: tuple[TiedLinear, ...] = ()  # in a tuple, so that it is not registered here

    def decoded_by(self, layer: nn.Module) -> None:
        """The layer whose atoms the code is found for."""
        if isinstance(layer, TiedLinear):
            self._decoder = (layer,)

    @torch.no_grad()
    def forward(self, features: Tensor) -> Code:
        if not self._decoder:
            raise ValueError(
                "SparseCoding finds a code for the atoms that decode it: use model=sparse_coding, "
                "or another dense model with model.tied=true"
            )
        atoms = self.project.weight  # [D, F]
        return Code(z=self.infer((features - self._decoder[0].bias) @ atoms.t(), atoms @ atoms.t()))

    def infer(self, match: Tensor, gram: Tensor) -> Tensor:
        """FISTA, from how each picture matches each atom [B, D] and how the atoms match each other [D, D]."""
        step = 1 / torch.linalg.eigvalsh(gram)[-1].clamp_min(torch.finfo(gram.dtype).eps)
        z = torch.zeros_like(match)  # [B, D]
        ahead, momentum = z, 1.0
        for _ in range(self.steps):
            previous, z = z, self._shrink(ahead - step * (ahead @ gram - match), step * self.weight)
            before, momentum = momentum, (1 + math.sqrt(1 + 4 * momentum**2)) / 2
            ahead = z + (before - 1) / momentum * (z - previous)
        return z

    def _shrink(self, z: Tensor, by: Tensor) -> Tensor:
        return (z - by).clamp_min(0) if self.positive else z.sign() * (z.abs() - by).clamp_min(0)
