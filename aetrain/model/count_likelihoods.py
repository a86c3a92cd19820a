"""Likelihoods of counts and of categories: Poisson, multinomial and categorical."""

import math
from collections.abc import Sequence
from typing import ClassVar

import torch
from torch import Tensor
from torch.nn import functional as F

from aetrain.model.likelihoods import Likelihood, Reduction, check_unit_scale, sum_observed
from aetrain.model.records import Kind

MIN_COUNT = (
    1e-6  # to which `inverse_mean` raises expected counts, so that a feature that is never counted has a finite log
)


class Poisson(Likelihood):
    """Independent Poisson counts; the decoder's output is the log of each rate.

    nll = sum_i rate_i - x_i log rate_i, without log x_i!, which no parameter changes. Of values that are no whole
    numbers, such as pixels, it is the generalised KL divergence of Lee & Seung (2001), "Algorithms for non-negative
    matrix factorization", eq. 3, up to a term of x alone, and no likelihood.
    """

    support = "nonnegative"

    def __init__(self, reduction: Reduction = "sum", scale: tuple[float, float] = (0.0, 1.0)) -> None:
        super().__init__(reduction)
        check_unit_scale("poisson", "values as they are", scale)

    def nll(self, decoded: Tensor, x: Tensor) -> Tensor:
        """Return -log p(x) of counts x without log x!, in nats per example [B]."""
        x, mask = self.observed(x)
        return sum_observed(F.poisson_nll_loss(decoded, x, log_input=True, full=False, reduction="none"), mask)

    def data_constant(self, x: Tensor) -> Tensor | None:
        """Return sum_i log x_i! [B]; None of values that are no whole numbers."""
        return log_factorials(self.observed(x)[0]).flatten(1).sum(1) if self.has_integers else None

    def mean(self, decoded: Tensor) -> Tensor:
        """Return the rates [B, C, H, W]."""
        return decoded.exp()

    def inverse_mean(self, x: Tensor) -> Tensor:
        """Return the logs of the rates x [B, C, H, W], which are raised to MIN_COUNT."""
        return x.clamp_min(MIN_COUNT).log()


class Multinomial(Likelihood):
    """Counts as draws of one feature after another: x ~ Multinomial(N, softmax(decoded)), N = sum_i x_i.

    nll = -sum_i x_i log p_i (Liang et al. 2018, "Variational autoencoders for collaborative filtering", eq. 2), without
    log(N! / prod_i x_i!), which no parameter changes. Of weights that are no whole numbers, such as tf-idf, it is a
    cross-entropy, and no likelihood. Where counts are missing, those observed are the draws among the observed
    features.
    """

    kinds: ClassVar[frozenset[Kind]] = frozenset({"vector", "counts"})
    support = "nonnegative"

    def __init__(self, reduction: Reduction = "sum", scale: tuple[float, float] = (0.0, 1.0)) -> None:
        super().__init__(reduction)
        check_unit_scale("multinomial", "values as they are", scale)

    def nll(self, decoded: Tensor, x: Tensor) -> Tensor:
        """Return -sum_i x_i log p_i of counts x, in nats per example [B]."""
        x, mask = self.observed(x)
        return cross_entropy(decoded.flatten(1), x.flatten(1), mask)

    def data_constant(self, x: Tensor) -> Tensor | None:
        """Return sum_i log x_i! - log N! [B], N the total of an example; None of weights that are no whole numbers."""
        if not self.has_integers:
            return None
        x = self.observed(x)[0].flatten(1)
        return log_factorials(x).sum(1) - torch.lgamma(x.sum(1) + 1)

    def mean(self, decoded: Tensor) -> Tensor:
        """Return the probability of each feature, [B, C, H, W] with the sum 1."""
        return decoded.flatten(1).softmax(1).view_as(decoded)

    def expected(self, decoded: Tensor, x: Tensor) -> Tensor:
        """Return expected counts [B, C, H, W], of the same total as x over the features that are observed in x."""
        x, mask = self.observed(x)
        p = self.mean(decoded)
        share = 1.0 if mask is None else sum_observed(p, mask).clamp_min(torch.finfo(p.dtype).tiny)
        return p * (x.flatten(1).sum(1) / share).view(-1, 1, 1, 1)

    def inverse_mean(self, x: Tensor) -> Tensor:
        """Return logits [B, C, H, W] whose probabilities are in proportion to x; x is raised to MIN_COUNT."""
        return x.clamp_min(MIN_COUNT).log()


class Categorical(Likelihood):
    """A category for each group of one-hot features; the decoder's output are logits, a softmax for each group.

    nll = -sum_i x_i log p_i. `groups` are the numbers of features of the groups in their order, such as the numbers of
    categories of a table's columns; null for one group of all features. A group whose features are all 0, an unknown
    category, or missing, adds nothing.
    """

    kinds: ClassVar[frozenset[Kind]] = frozenset({"vector"})
    support = "one-hot"

    def __init__(
        self,
        groups: Sequence[int] | None = None,
        reduction: Reduction = "sum",
        scale: tuple[float, float] = (0.0, 1.0),
    ) -> None:
        super().__init__(reduction)
        check_unit_scale("categorical", "values as they are", scale)
        if groups is not None and (not groups or min(groups) < 1):
            raise ValueError(f"groups={list(groups)} must have 1 or more numbers of features, each 1 or more")
        self.groups = None if groups is None else tuple(groups)

    def check(self, image_shape: tuple[int, int, int]) -> None:
        """Raise ValueError where the groups are not all features."""
        features = math.prod(image_shape)
        if self.groups is not None and sum(self.groups) != features:
            raise ValueError(
                f"likelihood.groups={list(self.groups)} has {sum(self.groups)} features, but an example has "
                f"{features}: name the number of categories of each one-hot column, or use likelihood.groups=null"
            )

    def nll(self, decoded: Tensor, x: Tensor) -> Tensor:
        """Return -sum_i x_i log p_i of one-hot features x, in nats per example [B]."""
        x, mask = self.observed(x)
        if self.groups is None:
            return cross_entropy(decoded.flatten(1), x.flatten(1), mask)
        parts = [decoded.flatten(1).split(self.groups, 1), x.flatten(1).split(self.groups, 1)]
        masks = [None] * len(self.groups) if mask is None else mask.flatten(1).split(self.groups, 1)
        return torch.stack([cross_entropy(*group) for group in zip(*parts, masks, strict=True)]).sum(0)

    def mean(self, decoded: Tensor) -> Tensor:
        """Return the probability of each category [B, C, H, W], with the sum 1 in each group."""
        logits = decoded.flatten(1)
        parts = logits.split(self.groups or logits.shape[1], 1)
        return torch.cat([part.softmax(1) for part in parts], 1).view_as(decoded)

    def inverse_mean(self, x: Tensor) -> Tensor:
        """Return logits [B, C, H, W] whose probabilities are in proportion to x; x is raised to MIN_COUNT."""
        return x.clamp_min(MIN_COUNT).log()


def cross_entropy(logits: Tensor, x: Tensor, mask: Tensor | None) -> Tensor:
    """Return -sum_i x_i log p_i [B] for p = softmax(logits) [B, D] of the features where `mask` is True, or of all."""
    if mask is None:
        return -(x * logits.log_softmax(1)).sum(1)
    mask = mask.flatten(1)
    log_p = logits.masked_fill(~mask, torch.finfo(logits.dtype).min).log_softmax(1)  # p is 0 where nothing is observed
    return -sum_observed(x * log_p, mask)


def log_factorials(x: Tensor) -> Tensor:
    """Return log x! of counts x, in the shape of x. Most counts are 0 or 1, and are not computed."""
    logs, is_larger = torch.zeros_like(x), x > 1
    logs[is_larger] = torch.lgamma(x[is_larger] + 1)
    return logs
