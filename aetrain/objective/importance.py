"""Importance weights of a random code's draws: what an IWAE descends, and what the likelihood is estimated from."""

import math
from dataclasses import replace

import torch
from torch import Tensor

from aetrain.model.autoencoder import Autoencoder
from aetrain.model.records import Forward, GaussianCode
from aetrain.objective.penalties import Penalty

AT_ONCE = 2**22  # pixels that are painted at a time
SEED = 1  # of the draws in evaluation, which must come out the same every time


def log_weights(
    model: Autoencoder, x: Tensor, code: GaussianCode, count: int, generator: torch.Generator | None = None
) -> Tensor:
    """log w_k = log p(x | z_k) + log p(z_k) - log q(z_k) for `count` draws z_k of each image's code, [K, B].

    Burda et al. (2016), "Importance weighted autoencoders", arXiv:1509.00519, below eq. 8. q and the prior N(0, I) are
    over what the bottleneck draws. An activation of the code and a sparsifier come after that: they are the beginning
    of the decoder, so p(x | z) is of decode(finish(z)). The likelihood's `constant` is left out.
    """
    parts = []
    most = max(1, AT_ONCE // x.numel())
    for copies in (min(most, count - done) for done in range(0, count, most)):
        drawn = replace(
            code,
            mean=code.mean.repeat(copies, 1),  # [K * B, D], the first draw of every image first
            log_var=code.log_var.repeat(copies, 1),
            where=tuple(switches.repeat(copies, 1, 1, 1) for switches in code.where),
        )
        z = model.bottleneck.sample(drawn, generator)
        squares = (z - drawn.mean).square() * (-drawn.log_var).exp() + drawn.log_var - z.square()
        decoded = model.decode(replace(drawn, z=model.finish(z)))
        nll = model.likelihood.nll(decoded, x.repeat(copies, 1, 1, 1))
        parts.append((0.5 * squares.sum(1) - nll).unflatten(0, (copies, -1)))
    return torch.cat(parts)


class IWAE(Penalty):
    """-log 1/K sum_k w_k, less the nll that the objective has already: with it, the loss is Burda et al.'s.

    Burda et al. (2016), arXiv:1509.00519, eq. 8, over K = `samples` draws of its own. It takes the place of the KL,
    whose Monte Carlo estimate it is at K = 1; then the loss is the negative ELBO. It has no weight, because any other
    than 1 would be no bound. In evaluation the draws are the same each time.
    """

    reads = GaussianCode

    def __init__(self, samples: int = 5) -> None:
        super().__init__()
        if samples < 1:
            raise ValueError(f"samples={samples} draws no code: use 1 or more")
        self.samples = samples

    def forward(self, model: Autoencoder, out: Forward) -> Tensor:
        assert isinstance(out.code, GaussianCode)
        if model.likelihood.reduction != "sum":
            raise ValueError(
                f"likelihood.reduction={model.likelihood.reduction} does not go with model.penalties.iwae, which is in "
                "nats per image: use likelihood.reduction=sum"
            )
        generator = None if model.training else torch.Generator(out.x.device).manual_seed(SEED)
        bound = math.log(self.samples) - log_weights(model, out.x, out.code, self.samples, generator).logsumexp(0)
        return bound - model.likelihood.nll(out.decoded, out.x)  # [B]
