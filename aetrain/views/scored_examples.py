"""Pictures of examples with their scores: images with reconstructions and error maps, vectors with errors by feature.

They are drawn outside of training, and have no view of their own. Shapes: K examples, C channels, H height, W width.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from aetrain.views.annotations import Annotations, pixel_key
from aetrain.views.bar_panels import BarList, Panel, draw_panels
from aetrain.views.rows import RECONSTRUCTED
from aetrain.views.view import Picture, grid_picture

NUM_FEATURES = 12  # of an example, those of the largest errors


def image_errors_picture(title: str, x: Tensor, reconstructions: Tensor, labels: Sequence[str]) -> Picture:
    """Return images x [K, C, H, W] above their reconstructions and the absolute error of each pixel.

    The error is the mean over channels. `labels` are the texts above the K columns.
    """
    errors = (reconstructions - x).abs().mean(1, keepdim=True).expand_as(x)
    rows = {"image": x, "reconstruction": reconstructions, "error": errors}
    annotations = Annotations(
        title,
        rows=[*rows],
        columns=labels,
        note="The error of a pixel is the absolute difference between image and reconstruction: black 0, white 1.",
        **pixel_key(x),
    )
    return grid_picture(torch.cat([*rows.values()]), annotations, len(x), [*rows])


def feature_errors_picture(
    title: str,
    errors: Tensor,
    values: Tensor,
    reconstructions: Tensor,
    labels: Sequence[str],
    feature_names: Sequence[str],
) -> Picture:
    """Return a panel for each of K vectors: the features of its largest squared errors [K, D], in the model's units.

    Beside the name of a feature are its value and that of the reconstruction, [K, D] each, in original units. A missing
    value has no error and is left out.
    """
    panels = []
    for row, label in enumerate(labels):
        count = min(NUM_FEATURES, int((~errors[row].isnan()).sum()))
        index = errors[row].nan_to_num(-1.0).topk(count).indices
        names = [
            f"{feature_names[number]}: {values[row, number]:.3g} ({reconstructions[row, number]:.3g})"
            for number in index.tolist()
        ]
        bars = BarList("squared error", names, errors[row, index, None].cpu(), [[RECONSTRUCTED]] * count)
        panels.append(Panel(label, [bars]))
    pixels, sheet = draw_panels(panels)
    note = (
        f"The {NUM_FEATURES} features of the largest squared errors of each example, with their value and, in "
        "brackets, that of the reconstruction. Errors are in the units of the model; each panel has its own scale."
    )
    return Picture(pixels, Annotations(title, note=note), sheet)
