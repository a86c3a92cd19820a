"""How likely images are under a variational model: -log p(x), estimated from importance-weighted draws of the code."""

import logging
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor

from aetrain.data.batches import in_order
from aetrain.evaluation.measures import Measure, Subject
from aetrain.evaluation.ruler import Figures
from aetrain.model.autoencoder import Autoencoder
from aetrain.model.records import GaussianCode
from aetrain.objective.importance import log_weights

log = logging.getLogger("aetrain")


@final
@dataclass(frozen=True)
class ImportanceSampled(Measure):
    """-log 1/K sum_k w_k in nats per image, for each K of `samples`: an upper bound of -log p(x) in expectation.

    Burda et al. (2016), arXiv:1509.00519, eq. 8 and theorem 1. As many codes are drawn as the largest K; as many of
    them as make whole groups are used for every other K. So K = 1 is the mean over that many estimates of the negative
    ELBO, and where each K divides the next the figures fall by Jensen's inequality. `count` test images, from the
    first; null for all.

    It is the likelihood of what `dataset.binarize` shows: of black and white pixels under likelihood=bernoulli, of a
    density of pixels in [0, 1] under likelihood=gaussian, whose constant is included. Grey pixels under Bernoulli
    have none: then it is the same bound, of the cross-entropy that the model was trained on.
    """

    samples: Sequence[int] = (1, 5, 50, 500)
    count: int | None = None

    def __post_init__(self) -> None:
        if not self.samples or min(self.samples) < 1:
            raise ValueError(f"samples={list(self.samples)} must name 1 or more numbers of draws, each 1 or more")
        if self.count is not None and self.count < 1:
            raise ValueError(f"count={self.count} measures nothing: use 1 or more, or null for all test images")

    def check(self, model: Autoencoder) -> None:
        """Only a code that is drawn from a distribution, and a decoder that sees nothing else of the image."""
        if not issubclass(model.bottleneck.emits, GaussianCode):
            raise ValueError(
                f"the code of {type(model.bottleneck).__name__} is not drawn from a normal distribution, so images "
                "have no likelihood: use model=vae, conv_vae or iwae, or leave this measure out"
            )
        with torch.no_grad():
            encoded = model.encoder(torch.zeros(1, *model.image_shape))
        if encoded.where:
            raise ValueError(
                "the decoder is given the encoder's max-pool switches, which have no prior, so images have no "
                "likelihood: use model.up=transpose or nearest"
            )

    @torch.no_grad()
    def __call__(self, subject: Subject) -> Figures:
        model, images = subject.model, subject.splits.test[: self.count]
        generator = torch.Generator(images.pixels.device).manual_seed(1)
        total = torch.zeros(len(self.samples), dtype=torch.float64, device=images.pixels.device)
        grey = False
        for x in in_order(images, 100, subject.prepare):
            code = model.encode(x)
            assert isinstance(code, GaussianCode)
            weights = log_weights(model, x, code, max(self.samples), generator).to(torch.float64)  # [K, B]
            total += torch.stack([bound(weights, samples).sum() for samples in self.samples])
            grey = grey or not bool(((x == 0) | (x == 1)).all())
        log.info("is_nll: %s", said(grey, constant := model.likelihood.constant(math.prod(model.image_shape))))
        means = (total / len(images) + constant).tolist()
        return {f"is_nll_{samples}": value for samples, value in zip(self.samples, means, strict=True)}


def bound(weights: Tensor, samples: int) -> Tensor:
    """-log mean w over groups of `samples` of the log weights [K, B], then the mean over the groups: [B]."""
    groups = len(weights) // samples
    each = weights[: groups * samples].unflatten(0, (groups, samples)).logsumexp(1)  # [groups, B]
    return math.log(samples) - each.mean(0)


def said(grey: bool, constant: float) -> str:
    """What the pixels are of which this is the likelihood."""
    if constant:
        return f"of a density of pixels in [0, 1], its constant of {constant:.2f} nats included"
    if grey:
        return (
            "the pixels are grey, and their cross-entropy is no likelihood: compare it with other grey figures alone "
            "(dataset.binarize=static or dynamic makes it one)"
        )
    return "of black and white pixels, as dataset.binarize makes them"
