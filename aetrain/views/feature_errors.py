"""A view of errors: how much of each feature's variance, and of each class, the reconstructions miss."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, final

import torch
from torch import Tensor

from aetrain.model.records import Kind
from aetrain.views.annotations import Annotations, KeyEntry
from aetrain.views.bar_panels import BarList, Panel, draw_panels
from aetrain.views.context import ViewContext
from aetrain.views.feature_scores import MIN_STD, feature_names, feature_std
from aetrain.views.rows import BASELINE, RECONSTRUCTED
from aetrain.views.view import Picture, check_positive

LIST_LENGTH = 15  # labels of a list, before the next one begins beside it


@final
@dataclass(frozen=True)
class FeatureErrors:
    """Bars of the mean squared error of each feature over its variance, and of each class, beside the linear baseline.

    1 is the error of the mean of the feature. The `count` features of the largest errors are shown, the largest first,
    and the first `classes` classes, whose errors are sums over the features. Values that are not known do not count.
    """

    description: ClassVar[str] = (
        "The mean squared error of each feature as a share of its variance, the largest first, and of each class: of "
        "the model (orange) and of the linear code of the same size (blue)."
    )
    data_kinds: ClassVar[tuple[Kind, ...]] = ("vector",)

    count: int = 30
    classes: int = 15

    def __post_init__(self) -> None:
        check_positive(count=self.count, classes=self.classes)

    def __call__(self, context: ViewContext) -> Picture:
        x = context.complete
        expected = context.expected_values(context.x_in, x)
        linear = context.baseline.reconstruct(context.x_in, context.model.code_dim)
        errors = torch.stack([(values - x).square().flatten(1) for values in (expected, linear)], dim=-1)  # [N, D, 2]
        variances = feature_std(x.flatten(1)).square()
        shares = errors.nanmean(0) / variances.clamp_min(MIN_STD**2)[:, None]  # [D, 2]
        shares = shares.masked_fill((variances <= MIN_STD**2)[:, None], torch.nan)
        index = shares[:, 0].nan_to_num(-1.0).argsort(descending=True, stable=True)[: self.count]
        names = feature_names(context)
        panels = error_panels("features", "error / variance", [names[i] for i in index.tolist()], shares[index])
        panels += self._class_panels(context, errors.nan_to_num(0.0).sum(1))
        pixels, sheet = draw_panels(panels)
        annotations = Annotations(
            f"Errors of the features of {context.split} examples",
            key=(
                KeyEntry(RECONSTRUCTED, "reconstruction"),
                KeyEntry(BASELINE, f"{context.baseline.name} with {context.model.code_dim} components"),
            ),
            note=f"The mean squared error of a feature over its variance, over {len(x):,} examples: 1 is the error of "
            f"its mean. Shown: {len(index)} of {len(names)} features, the largest error first.",
        )
        return Picture(pixels, annotations, sheet)

    def _class_panels(self, context: ViewContext, errors: Tensor) -> list[Panel]:
        """Return the panels of the mean errors of the classes, for errors [N, 2]; none without labels."""
        if context.labels is None:
            return []
        classes = context.labels.unique()[: self.classes]
        means = torch.stack([errors[context.labels == label].mean(0) for label in classes])
        return error_panels("classes", "squared error", [*map(context.class_name, classes.tolist())], means)


def error_panels(title: str, heading: str, labels: Sequence[str], values: Tensor) -> list[Panel]:
    """Return errors [labels, 2] as panels of at most `LIST_LENGTH` labels on one scale."""
    limits = 0.0, max(float(values.nan_to_num(0.0).max()), MIN_STD)
    panels = []
    for start in range(0, len(labels), LIST_LENGTH):
        part = labels[start : start + LIST_LENGTH]
        colours = [[RECONSTRUCTED, BASELINE]] * len(part)
        bars = BarList(heading, part, values[start : start + LIST_LENGTH].cpu(), colours, limits)
        panels.append(Panel(f"{title}, bars to {limits[1]:.2g}", [bars]))
    return panels
