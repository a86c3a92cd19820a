"""The log-likelihood of images under a variational autoencoder, estimated by importance sampling."""

import logging
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar, cast, final

import torch
from torch import Tensor

from aetrain.data.examples import with_targets
from aetrain.evaluation.evaluator import Metrics
from aetrain.evaluation.measures.measure import EvalInputs, Measure
from aetrain.model.autoencoder import Autoencoder
from aetrain.model.codes import RandomCode
from aetrain.model.likelihoods import Bernoulli, Likelihood
from aetrain.objective.importance import log_weights
from aetrain.objective.objective import loss_constants, mean_data_constant
from aetrain.utils.devices import to_float64

log = logging.getLogger("aetrain")

BATCH_SIZE = 100


@final
@dataclass(frozen=True)
class ImportanceSampled(Measure):
    """-log 1/K sum_k w_k in nats per image, for each K of `samples`: in expectation an upper bound of -log p(x).

    Burda et al. (2016), arXiv:1509.00519, eq. 8 and theorem 1. The largest K is the number of sampled codes. For every
    other K they are divided into groups of K, without the rest, and the estimates of the groups are averaged. K = 1
    is therefore a mean of many estimates of the negative ELBO. If each K divides the next, the values decrease (by
    Jensen's inequality). `count` is the number of test images, from the first; null for all.

    The likelihood is that of the pixels that `dataset.binarize` makes: with likelihood=bernoulli, of black and white
    pixels; with likelihood=gaussian, a density of pixels in [0, 1] with its constant. Grey pixels have no likelihood
    under Bernoulli: the value is then the same bound for the cross-entropy on which the model was trained. Where values
    are hidden from the model, it is of the complete examples, and codes are drawn for those that the model sees.
    """

    descriptions: ClassVar[Mapping[str, str]] = {
        "is_nll_K": (
            "negative log-likelihood estimated by importance sampling with K samples of the code, nats; "
            "not a likelihood for grey pixels with likelihood=bernoulli"
        ),
    }

    samples: Sequence[int] = (1, 5, 50, 500)
    count: int | None = None

    def __post_init__(self) -> None:
        if not self.samples or min(self.samples) < 1:
            raise ValueError(f"samples={list(self.samples)} must name 1 or more numbers of draws, each 1 or more")
        if self.count is not None and self.count < 1:
            raise ValueError(f"count={self.count} measures nothing: use 1 or more, or null for all test images")

    def check(self, model: Autoencoder) -> None:
        """Raise ValueError if the code is not random, or if the decoder gets more of the image than the code."""
        if not model.bottleneck.emits.is_random:
            raise ValueError(
                f"the code of {type(model.bottleneck).__name__} is not drawn from a distribution, so images have no "
                "likelihood: use model=vae, conv_vae or iwae, or leave this measure out"
            )
        with torch.no_grad():
            encoded = model.encoder(torch.zeros(1, *model.image_shape))
        if encoded.pool_indices:
            raise ValueError(
                "the decoder gets the encoder's max-pool indices, which have no prior, so images have no likelihood: "
                "use model.up=transpose or nearest"
            )

    @torch.no_grad()
    def __call__(self, inputs: EvalInputs) -> Metrics:
        """Return `is_nll_1`, `is_nll_5` and so on."""
        model, images = inputs.model, inputs.splits.test[: self.count]
        generator = torch.Generator(images.values.device).manual_seed(1)
        totals = to_float64(torch.zeros(len(self.samples), device=images.values.device))
        is_grey = False
        for x_in, x in with_targets(images, BATCH_SIZE, inputs.prepare):
            code = model.encode(x_in)
            weights = to_float64(log_weights(model, x, cast(RandomCode, code), max(self.samples), generator))  # [K, B]
            totals += torch.stack([importance_bound(weights, samples).sum() for samples in self.samples])
            is_grey = is_grey or not bool(((x == 0) | (x == 1) | x.isnan()).all())
        batches = (x for _, x in with_targets(images, BATCH_SIZE, inputs.prepare))
        constant = loss_constants(model, mean_data_constant(model, batches))["nll"]
        log.info("is_nll: %s", describe_values(model.likelihood, is_grey, constant))
        means = (totals / len(images) + constant).tolist()
        return {f"is_nll_{samples}": value for samples, value in zip(self.samples, means, strict=True)}


def importance_bound(log_weights: Tensor, samples: int) -> Tensor:
    """Return -log of the mean weight of `samples` draws, averaged over groups of log weights [K, B]: [B], nats."""
    groups = len(log_weights) // samples
    log_sums = log_weights[: groups * samples].unflatten(0, (groups, samples)).logsumexp(1)  # [groups, B]
    return math.log(samples) - log_sums.mean(0)


def describe_values(likelihood: Likelihood, is_grey: bool, constant: float) -> str:
    """Return the log line that names the kind of values of the likelihood and its constant."""
    if likelihood.is_density:
        return f"density of pixels in [0, 1], including its constant of {constant:.2f} nats"
    if not isinstance(likelihood, Bernoulli):
        return f"probability of the values, including its constant of {constant:.2f} nats"
    if is_grey:
        return (
            "the pixels are grey, and their cross-entropy is no likelihood: compare it only with values of grey pixels "
            "(with dataset.binarize=static or dynamic it is a likelihood)"
        )
    return "likelihood of black and white pixels (dataset.binarize)"
