"""The picture of the examples on which two models differ most: each example with both of its reconstructions.

Shapes: K examples, C channels, H height, W width, D features.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from aetrain.model.records import Kind, noun_of
from aetrain.views.annotations import Annotations, KeyEntry, pixel_key
from aetrain.views.bar_panels import BarList, Panel, draw_panels
from aetrain.views.render import RGB
from aetrain.views.view import Picture, grid_picture

NUM_FEATURES = 10  # of an example, those in which the reconstructions differ most
EXAMPLE: RGB = (50, 50, 50)
FIRST: RGB = (255, 127, 14)  # orange
SECOND: RGB = (31, 119, 180)  # blue


@dataclass(frozen=True, eq=False)
class DifferingExamples:
    """Examples in whose first half model A is better by most, and in whose second half model B is."""

    kind: Kind
    x: Tensor  # [K, C, H, W]
    reconstructions: tuple[Tensor, Tensor]  # of A and of B, [K, C, H, W] each
    errors: tuple[Sequence[float], Sequence[float]]  # of A and of B, K each
    names: Sequence[str]  # of the examples, K
    models: tuple[str, str]  # the names of A and B
    feature_names: Sequence[str] = ()  # D, of examples that are not images


def draw_differing_examples(examples: DifferingExamples) -> Picture:
    """Return a grid of images, or panels of the features in which the reconstructions differ most."""
    return _image_grid(examples) if examples.kind == "image" else _feature_panels(examples)


def choose_differing_examples(first: Tensor, second: Tensor, count: int) -> Tensor:
    """Return the places [2 * count] of the examples whose errors, [N] each, differ most.

    In the first half the second error exceeds the first by most, in the other half the first the second; the largest
    difference comes first. The halves are disjoint, so that both are smaller where N < 2 * count.
    """
    count = min(count, len(first) // 2)
    order = (second - first).argsort(descending=True, stable=True)
    return torch.cat([order[:count], order.flip(0)[:count]])


def _annotations(examples: DifferingExamples, **labels: object) -> Annotations:
    noun = noun_of(examples.kind)
    first, second = examples.models
    return Annotations(
        f"Test {noun}s on which A and B differ most",
        note=f"A: {first}. B: {second}. Numbers are squared errors, summed over the values of an {noun}. Upper half: "
        "the error of B less that of A is largest. Lower half: it is smallest.",
        **labels,  # type: ignore[arg-type]
    )


def _image_grid(examples: DifferingExamples) -> Picture:
    """Return a row of images above those of A and B, for each half; the errors are above the reconstructions."""
    columns = len(examples.x) // 2
    tiles: list[Tensor] = []
    texts: list[str] = []
    for half in (slice(None, columns), slice(columns, None)):
        tiles.append(examples.x[half])
        texts += examples.names[half]
        for images, errors in zip(examples.reconstructions, examples.errors, strict=True):
            tiles.append(images[half])
            texts += [f"{error:.3g}" for error in errors[half]]
    annotations = _annotations(examples, rows=["image", "A", "B"] * 2, tiles=texts, **pixel_key(examples.x))
    return grid_picture(torch.cat(tiles), annotations, columns)


def _feature_panels(examples: DifferingExamples) -> Picture:
    """Return a panel for each example: its value of a feature, and those that A and B reconstruct."""
    values = torch.stack([examples.x, *examples.reconstructions], dim=-1).flatten(1, 3).cpu()  # [K, D, 3]
    names = examples.feature_names or [f"feature {number}" for number in range(1, values.shape[1] + 1)]
    panels = []
    for number, rows in enumerate(values):
        gaps = (rows[:, 1] - rows[:, 2]).abs()
        known = ~rows[:, 0].isnan()
        chosen = gaps.masked_fill(~known, -1).topk(min(NUM_FEATURES, int(known.sum()))).indices
        labels = [names[feature] for feature in chosen.tolist()]
        first, second = (errors[number] for errors in examples.errors)
        bars = BarList("largest differences", labels, rows[chosen], [[EXAMPLE, FIRST, SECOND]] * len(labels))
        panels.append(Panel(f"{examples.names[number]}: A {first:.3g}, B {second:.3g}", [bars]))
    pixels, sheet = draw_panels(panels)
    key = (KeyEntry(EXAMPLE, "example"), KeyEntry(FIRST, "A"), KeyEntry(SECOND, "B"))
    return Picture(pixels, _annotations(examples, key=key), sheet)
