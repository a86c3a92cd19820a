"""Importance weights of draws of a random code, for the loss of an IWAE and for estimates of the likelihood."""

import math
from dataclasses import replace
from typing import cast

import torch
from torch import Tensor

from aetrain.model.autoencoder import Autoencoder
from aetrain.model.codes import RandomCode
from aetrain.model.records import Forward
from aetrain.objective.penalties import Penalty, make_generator
from aetrain.utils.shards import batch_size_of

MAX_DECODED_PIXELS = 2**22  # that are decoded at a time


def log_weights(
    model: Autoencoder, x: Tensor, code: RandomCode, count: int, generator: torch.Generator | None = None
) -> Tensor:
    """Return log w_k = log p(x | z_k) + log p(z_k) - log q(z_k) [K, B] for `count` draws z_k of each image's code.

    Burda et al. (2016), "Importance weighted autoencoders", arXiv:1509.00519, below eq. 8. q and the prior p are
    distributions of the bottleneck's z. The code's activation and sparsifier count as the first layers of the decoder,
    so p(x | z) is of decode(code_transform(z)). The likelihood's `constant` is left out.
    """
    weights = []
    draws_at_once = max(1, MAX_DECODED_PIXELS // (batch_size_of(x) * x[0].numel()))
    for start in range(0, count, draws_at_once):
        num_draws = min(draws_at_once, count - start)
        repeated = code.repeat(num_draws)  # [K * B, ...], the first draw of every image first
        z = repeated.sample(generator)
        decoded = model.decode(replace(repeated, z=model.code_transform(z)))
        nll = model.likelihood.nll(decoded, x.repeat(num_draws, 1, 1, 1))
        weights.append((repeated.log_prior_ratio(z) - nll).unflatten(0, (num_draws, -1)))
    return torch.cat(weights)


class IWAE(Penalty):
    """-log 1/K sum_k w_k, minus the nll that the objective already contains: the loss is then that of Burda et al.

    Burda et al. (2016), arXiv:1509.00519, eq. 8, over K = `samples` draws of its own. It replaces the KL, of which it
    is a Monte Carlo estimate at K = 1; the loss is then the negative ELBO. It has no weight, because the loss is a
    bound at weight 1 only. Evaluation takes the same draws each time.
    """

    reads = RandomCode
    description = "importance-weighted bound of -log p(x) minus nll, nats; it replaces kl in the loss of an IWAE"

    def __init__(self, samples: int = 5) -> None:
        super().__init__()
        if samples < 1:
            raise ValueError(f"samples={samples} draws no code: use 1 or more")
        self.samples = samples

    def forward(self, model: Autoencoder, out: Forward) -> Tensor:
        """Return the bound minus the nll, in nats [B]; raise ValueError where the likelihood is a mean over pixels."""
        code = cast(RandomCode, out.code)
        if model.likelihood.reduction != "sum":
            raise ValueError(
                f"likelihood.reduction={model.likelihood.reduction} does not go with model.penalties.iwae, which is in "
                "nats per image: use likelihood.reduction=sum"
            )
        generator = make_generator(model, out.x.device)
        bound = math.log(self.samples) - log_weights(model, out.x, code, self.samples, generator).logsumexp(0)
        return bound - model.likelihood.nll(out.decoded, out.x)  # [B]
