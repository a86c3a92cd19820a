"""The features that a unit goes with and those that it produces, such as words, films or the columns of a table.

Shapes: N examples, D features, U units.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from aetrain.model.records import Tap
from aetrain.views.context import ViewContext
from aetrain.views.unit_selection import raised_unit_changes

MIN_OCCURRENCES = 5  # examples with a feature that is not 0, fewer of which tell little about it
MAX_DEVIATION = 5.0  # of an activation from its mean, in standard deviations
MIN_STD = 1e-6  # of a feature that varies


@dataclass(frozen=True)
class Strongest:
    """The names of the strongest features of a unit, with their scores, positive ones first."""

    names: tuple[str, ...]
    scores: tuple[float, ...]


def feature_names(context: ViewContext) -> Sequence[str]:
    """Return the names of the features, or `feature 1` and so on where they have none."""
    num_features = context.x.shape[3]
    return context.feature_names or [f"feature {number}" for number in range(1, num_features + 1)]


def unit_correlations(context: ViewContext, tap: Tap, units: Tensor) -> Tensor:
    """Return the correlation [U', D] of the activation of each of `units` [U'] with each feature over the examples.

    It is the activation-weighted mean of the examples less their mean, in standard deviations: for activations a with
    mean 0 and variance 1, mean(a x) = corr(a, x) std(x). A missing value is 0, as the encoder sees it. So that a few
    examples, such as very long documents, do not decide, counts are taken as log(1 + count), and activations that are
    more than `MAX_DEVIATION` standard deviations from their mean as so far from it. Features that do not vary, and
    those of fewer than `MIN_OCCURRENCES` examples, have 0.
    """
    x = context.x.flatten(1).nan_to_num(0.0)
    if context.model.kind == "counts":
        x = x.clamp_min(0).log1p()
    activations = context.activations[tap.name].per_image[:, units].to(x).nan_to_num(0, 0, 0)
    activations = standardise(activations).clamp(-MAX_DEVIATION, MAX_DEVIATION)
    correlations = standardise(activations).t() @ standardise(x) / len(x)
    return correlations.masked_fill(rare_features(context.x), 0.0)


def unit_effects(context: ViewContext, tap: Tap, units: Tensor) -> Tensor:
    """Return the effect [U', D] of each of `units` [U'] on each feature of the decoded example.

    It is the change of the expected value as the unit rises by one standard deviation from its mean, while the others
    of its layer have their means (`aetrain.views.unit_selection.raised_unit_changes`), over the spread of the feature:

    - vectors: the standard deviation over the examples;
    - counts: the root of the mean count, the standard deviation of a Poisson distribution;
    - ratings: 1 over the root of the share of the examples that have a rating, so that films that few users know do not
      come first.

    A feature that does not vary, or that fewer than `MIN_OCCURRENCES` examples have, has 0.
    """
    values = context.activations[tap.name].values
    changes = raised_unit_changes(context.model, tap, values, context.mean_image, units)
    effects = torch.cat([change.flatten(1) for change in changes]).nan_to_num(0, 0, 0)
    x = context.x.flatten(1)
    match context.model.kind:
        case "counts":
            spread = x.nan_to_num(0.0).mean(0).clamp_min(0).sqrt()
        case "ratings":
            spread = (~x.isnan()).to(x).mean(0).rsqrt()
        case _:
            spread = feature_std(x)
    is_omitted = rare_features(context.x) | ~(spread > MIN_STD)
    return (effects / spread.clamp_min(MIN_STD)).masked_fill(is_omitted, 0.0)


def rare_features(x: Tensor) -> Tensor:
    """Return the features [D] that are neither 0 nor missing in fewer than `MIN_OCCURRENCES` of x [N, 1, 1, D]."""
    return (x.flatten(1).nan_to_num(0.0) != 0).sum(0) < min(MIN_OCCURRENCES, len(x))


def feature_std(x: Tensor) -> Tensor:
    """Return the standard deviation [D] of each feature over the rows of x [N, D] in which it is known; 0 of none."""
    mean = x.nanmean(0)
    return (x - mean).square().nanmean(0).sqrt().nan_to_num(0.0)


def standardise(columns: Tensor) -> Tensor:
    """Return columns [N, K] with mean 0 and variance 1; those that do not vary are 0."""
    centred = columns - columns.mean(0)
    std = centred.square().mean(0).sqrt()
    return torch.where(std > MIN_STD, centred / std.clamp_min(MIN_STD), 0.0)


def strongest_features(scores: Tensor, names: Sequence[str], count: int) -> list[Strongest]:
    """Return the `count` features of largest absolute score of each unit, for scores [U, D] of named features."""
    index = scores.abs().topk(min(count, scores.shape[1]), dim=1).indices
    values = scores.gather(1, index)
    order = values.argsort(dim=1, descending=True, stable=True)
    rows = zip(index.gather(1, order).tolist(), values.gather(1, order).tolist(), strict=True)
    strongest = []
    for columns, row in rows:
        pairs = [(names[column], score) for column, score in zip(columns, row, strict=True) if score]
        strongest.append(Strongest(tuple(name for name, _ in pairs), tuple(score for _, score in pairs)))
    return strongest
