"""A view of single rows: the strongest features of an example, beside those of its reconstruction."""

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
from aetrain.views.image_grids import interleave_classes
from aetrain.views.render import RGB
from aetrain.views.view import Picture, check_positive

TRUE: RGB = (50, 50, 50)
RECONSTRUCTED: RGB = (255, 127, 14)  # orange
BASELINE: RGB = (150, 190, 220)  # light blue
HIDDEN_MARK = "? "  # before the name of a feature that the model does not see

Choice = tuple[str, Tensor]  # a heading, and the score [D] of each feature; the largest are shown, NaN is not


@final
@dataclass(frozen=True)
class Rows:
    """A panel for each of `count` examples: `features` of its values, with the reconstruction and the linear baseline.

    With labels, the examples are the first of each class in the order of the classes, then the second of each.

    - Counts: the features whose counts, and those whose expected counts, are the farthest above the mean of all
      examples, so that common words do not come first in every document.
    - Ratings: the highest known ratings, and the largest errors; of examples with held-out ratings, these.
    - Other vectors: all features in their order, or those of the largest errors, in standard deviations, where there
      are more.
    """

    description: ClassVar[str] = (
        "Examples, each with its strongest features: their values (black), those of the reconstruction (orange) and of "
        "the linear code of the same size (blue)."
    )
    data_kinds: ClassVar[tuple[Kind, ...]] = ("vector", "counts", "ratings")

    count: int = 6
    features: int = 10

    def __post_init__(self) -> None:
        check_positive(count=self.count, features=self.features)

    def __call__(self, context: ViewContext) -> Picture:
        chosen = interleave_classes(context.labels, len(context.x))[: self.count].to(context.x.device)
        expected = context.expected_values(context.x_in[chosen], context.complete[chosen])
        linear = context.baseline.reconstruct(context.x_in[chosen], context.model.code_dim)
        values = torch.stack([context.complete[chosen], expected, linear], dim=-1).flatten(1, 3)  # [K, D, 3]
        panels = []
        for row, number in enumerate(chosen.tolist()):
            panels.append(Panel(context.example_name(number), self._lists(context, number, values[row])))
        pixels, sheet = draw_panels(panels)
        hidden_note = f" {HIDDEN_MARK.strip()}: hidden from the model." if context.targets is not None else ""
        annotations = Annotations(
            f"{context.split.capitalize()} examples and their reconstructions",
            key=(
                KeyEntry(TRUE, "example"),
                KeyEntry(RECONSTRUCTED, "reconstruction"),
                KeyEntry(BASELINE, f"{context.baseline.name} with {context.model.code_dim} components"),
            ),
            note=f"{NOTES[context.model.kind]}{hidden_note}",
        )
        return Picture(pixels, annotations, sheet)

    def _lists(self, context: ViewContext, number: int, values: Tensor) -> list[BarList]:
        """Return the lists of bars of example `number` with values [D, 3]: true, reconstructed, of the baseline."""
        is_hidden = (context.x[number].isnan() & ~context.complete[number].isnan()).flatten()
        names = feature_names(context)
        lists = []
        for heading, scores in choose_features(context, values, is_hidden, self.features):
            num_known = int((~scores.isnan()).sum())
            index = scores.nan_to_num(-torch.inf).topk(min(self.features, num_known)).indices
            marks = [HIDDEN_MARK if hidden else "" for hidden in is_hidden[index].tolist()]
            labels = [mark + names[feature] for mark, feature in zip(marks, index.tolist(), strict=True)]
            colours = [[TRUE, RECONSTRUCTED, BASELINE]] * len(labels)
            lists.append(BarList(heading, labels, values[index].cpu(), colours))
        return lists


NOTES: dict[Kind, str] = {
    "counts": "Bars are counts and expected counts. Of an example, the features whose counts are the farthest above "
    "their mean; of its reconstruction, those whose expected counts are.",
    "ratings": "Bars are ratings and expected ratings.",
    "vector": "Bars are values. Of more features than a panel has, those of the largest errors in standard deviations.",
    "image": "",
}


def choose_features(context: ViewContext, values: Tensor, is_hidden: Tensor, count: int) -> Sequence[Choice]:
    """Return the lists of an example with values [D, 3]: true, reconstructed, of the baseline (see `Rows`)."""
    true, expected, _ = values.unbind(1)
    error = (expected - true).abs()
    match context.model.kind:
        case "counts":
            mean = context.mean_image.flatten()
            return [
                ("in the example", (true - mean).where(true != 0, torch.nan)),
                ("in the reconstruction", expected - mean),
            ]
        case "ratings":
            best = ("highest ratings", true.where(~is_hidden, torch.nan))
            if bool(is_hidden.any()):
                return [best, ("held-out ratings", true.where(is_hidden, torch.nan))]
            return [best, ("largest errors", error)]
        case _:
            if len(true) <= count:
                order = -torch.arange(len(true), device=true.device, dtype=true.dtype)
                return [("all features", order.where(~true.isnan(), torch.nan))]
            std = feature_std(context.complete.flatten(1))
            return [("largest errors", error / std.clamp_min(MIN_STD))]
