"""Views of units: the input that activates each unit most, its effect on the decoded image, its activations."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal, final

import torch
from torch import Tensor

from aetrain.model.records import Kind
from aetrain.utils.devices import to_float64
from aetrain.views.annotations import Annotations, KeyEntry, Tiles, signed_key
from aetrain.views.context import Norm, ViewContext
from aetrain.views.render import (
    DEAD_COLOUR,
    RGB,
    SATURATED_COLOUR,
    TILE_WIDTH,
    WHITE,
    add_footer,
    describe_limit,
    draw_frames,
    enlarge,
    grid,
    signed_grey,
    signed_limit,
)
from aetrain.views.unit_activations import MIN_NORM, UnitActivations
from aetrain.views.unit_selection import UnitSelection, select_first
from aetrain.views.view import Histograms, Picture, PictureSet, check_positive

Order = Literal["importance", "number", "rate", "similarity"]

# Orders that differ from that of the selected units, in words.
ORDERS: dict[str, str] = {
    "rate": "highest firing rate first",
    "similarity": "units that are active at the same images side by side",
}
MIN_COLUMNS = 8  # of a grid of units
MAX_FULL_SIZE_UNITS = 32  # units of a grid with full-size tiles; TensorBoard scales wider grids down anyway
MAX_HISTOGRAM_VALUE = 1e19  # TensorBoard's bins end at 1e20


@final
@dataclass(frozen=True)
class Units:
    """Every layer's units, each as the input of norm 1 that activates it most; one grid for each layer.

    For linear units that read pixels, the input is their weights. For other units it is a change of the mean image, as
    large as an image's deviation from the mean, found by gradient ascent. `norm` decides which changes count as equally
    large: `data_covariance` prefers directions in which the images vary; `pixels` treats all pixels alike, and its
    maxima often look like noise (`ViewContext.max_activating_input`).

    White: ink there raises the activation. Black: ink there lowers it. Grey: no effect. The scale is the same for all
    units, steps and runs: white is `limit` / n^(1/4) for n pixels, where n^(-1/4) is the geometric mean of 1 / sqrt(n),
    the size of n equal pixels, and 1, the size of a single pixel. So strokes are visible on 784 pixels and on kernels
    of 9 pixels. A unit that is dead over the context's images has a red frame, a saturated unit a blue one.

    A layer with more units than `count` shows `count` of them. During training they are the first ones, in positions
    that they keep for the whole run. Final pictures show live units alone, the most important first
    (`ViewContext.select_units`). `order`: by `importance`, units stand in this order; by `rate`, units that fire at
    most images come first; by `similarity`, units that are active at the same images are neighbours. By `number`, final
    pictures show the units of training.
    """

    description: ClassVar[str] = (
        "The input that activates each unit most: white raises the activation, black lowers it; "
        "red frame: dead, blue: saturated."
    )

    selects_units: ClassVar[bool] = True

    count: int = 64
    limit: float = 0.9
    order: Order = "importance"
    norm: Norm = "data_covariance"

    def __post_init__(self) -> None:
        check_positive(count=self.count, limit=self.limit)

    def __call__(self, context: ViewContext) -> PictureSet:
        pictures = {}
        for tap in context.unit_layers:
            activations = context.activations[tap.name]
            selection = context.select_units(tap, self.count)
            if self.order == "number":
                selection = select_first(activations, self.count)
            if self.order in ORDERS:
                units = order_units(activations, selection.units, self.order)
                selection = selection.reorder(units, ORDERS[self.order])
            inputs = context.max_activating_input(tap, selection.units, self.norm)
            if inputs is not None:
                frames = frame_colours(activations, selection.units)
                tiles = draw_units(shade(inputs, self.limit), frames)
                limit = norm_limit(inputs, self.limit)
                annotations = Annotations(
                    f"Inputs that activate the units of {layer_name(tap.name)} most",
                    x_axis="unit",
                    tiles=selection.numbers,
                    key_title="pixel of an input of norm 1",
                    key=[*signed_key(limit), *frame_key(frames)],
                    note=f"White raises the activation, black lowers it. {describe_selection(selection)}",
                )
                pictures[tap.name] = Picture(tiles.pixels, annotations, tiles, selection, limit)
        return PictureSet(pictures)


def shade(pictures: Tensor, limit: float) -> Tensor:
    """Return pictures of norm 1, [U, C, h, w], as grey values: white is `limit` / n^(1/4) for n = C * h * w."""
    return signed_grey(pictures, norm_limit(pictures, limit))


def norm_limit(pictures: Tensor, limit: float) -> float:
    """Return the value that is white in pictures of norm 1, [U, C, h, w]: `limit` / n^(1/4) for n = C * h * w."""
    return float(limit / pictures[0].numel() ** 0.25)


def order_units(activations: UnitActivations, units: Tensor, order: Order) -> Tensor:
    """Return `units` [U'] in the given order; by similarity, dead units come last."""
    match order:
        case "rate":
            return units[activations.rate[units].argsort(descending=True, stable=True)]
        case "similarity":
            alive = units[~activations.dead[units]]
            dead = units[activations.dead[units]]
            return torch.cat([alive[seriate(activations.per_image[:, alive])], dead])
        case _:
            return units


def seriate(columns: Tensor) -> Tensor:
    """Return the order [U] in which similar columns [N, U] are neighbours.

    It is the order of the entries of the Fiedler vector (second eigenvector of the Laplacian) of the graph whose edges
    have the weights (1 + correlation) / 2 (Atkins, Boman & Hendrickson 1998, "A spectral algorithm for seriation").
    """
    if columns.shape[1] < 3:
        return torch.arange(columns.shape[1], device=columns.device)
    device, columns = columns.device, to_float64(columns).nan_to_num(0, 0, 0)
    columns = columns - columns.mean(0)
    columns = columns / columns.norm(dim=0).clamp_min(MIN_NORM)
    similarity = (1 + columns.t() @ columns) / 2  # [U, U]
    fiedler = torch.linalg.eigh(similarity.sum(1).diag() - similarity).eigenvectors[:, 1]
    sign = fiedler[fiedler.abs().argmax()].sign()  # eigh leaves it open
    return (fiedler * sign).argsort(stable=True).to(device)


def frame_colours(activations: UnitActivations, units: Tensor) -> list[RGB | None]:
    """Return the frame colour of each of `units` [U']: red for dead, blue for saturated, None for the others."""
    colours: list[RGB | None] = []
    states = zip(activations.dead[units].tolist(), activations.saturated[units].tolist(), strict=True)
    for dead, saturated in states:
        if dead:
            colours.append(DEAD_COLOUR)
        else:
            colours.append(SATURATED_COLOUR if saturated else None)
    return colours


@final
@dataclass(frozen=True)
class DecoderUnits:
    """The code's units, each as its effect on the decoded image: decode(m + 2 s_j e_j) - decode(m), j = 1..D.

    m is the mean code of the context's images and s_j the standard deviation of unit j, so each unit has the strength
    that it has on images. The difference removes the mean image; a unit that the decoder ignores is plain grey. White:
    the unit adds ink. Black: the unit removes ink. White is a change by `limit` or more; null is the limit of each
    picture (`signed_limit`), which is written below it. The picture shows `count` units (`ViewContext.select_units`).
    """

    description: ClassVar[str] = (
        "The change of the decoded image when a code unit rises by two standard deviations: white adds ink, black "
        "removes it, on the scale that is written below the picture."
    )
    selects_units: ClassVar[bool] = True

    count: int = 64
    limit: float | None = None

    def __post_init__(self) -> None:
        check_positive(count=self.count)
        if self.limit is not None:
            check_positive(limit=self.limit)

    def __call__(self, context: ViewContext) -> Picture:
        selection = context.select_units(context.code_tap, self.count)
        mean, std = context.z.mean(0), context.z.std(0, correction=0)  # [D]
        codes = mean + 2 * std.diag()[selection.units]  # [units, D]
        change = context.decode_pixels(codes) - context.decode_pixels(mean[None])  # [units, C, H, W] in [-1, 1]
        limit = self.limit
        if limit is None:
            limit = signed_limit(change[~context.activations["code"].dead[selection.units]])
        tiles = draw_units(signed_grey(change, limit))
        annotations = Annotations(
            "Effects of the units of the code on the decoded image",
            x_axis="unit",
            tiles=selection.numbers,
            key_title="change of a pixel",
            key=signed_key(limit),
            note="A picture is the change of the decoded image when the unit rises by two standard deviations from its "
            f"mean and all other units have their means. {describe_selection(selection)}",
        )
        return Picture(add_footer(tiles.pixels, describe_limit(limit)), annotations, tiles, selection, limit)


@final
@dataclass(frozen=True)
class Activations:
    """Histograms of every layer's activations over the context's images.

    A layer with more activations than `count` is represented by a random sample of `count`, at the same positions at
    every step.
    """

    description: ClassVar[str] = "Histograms of the activations of each layer."
    data_kinds: ClassVar[tuple[Kind, ...]] = ("image", "vector", "counts", "ratings")

    count: int = 20_000

    def __post_init__(self) -> None:
        check_positive(count=self.count)

    def __call__(self, context: ViewContext) -> Histograms:
        samples = {name: self._sample(layer.values, context) for name, layer in context.activations.items()}
        num_images = len(context.x)
        annotations = Annotations(
            "Distributions of the activations of each layer",
            x_axis="activation",
            y_axis="number of values",
            note=f"At most {self.count:,} activations of a layer, from {num_images:,} {context.split} images.",
        )
        return Histograms({name: values for name, values in samples.items() if len(values)}, annotations)

    def _sample(self, activations: Tensor, context: ViewContext) -> Tensor:
        flat = activations.flatten()
        if len(flat) > self.count:
            generator = context.make_generator()
            flat = flat[torch.randint(len(flat), (self.count,), generator=generator, device=flat.device)]
        return flat[flat.isfinite()].clamp(-MAX_HISTOGRAM_VALUE, MAX_HISTOGRAM_VALUE)


def layer_name(name: str) -> str:
    """Return the name of a layer in a sentence: `the code`, `layer hidden1`."""
    return f"the {name}" if name in ("code", "codebook") else f"layer {name}"


def describe_selection(selection: UnitSelection) -> str:
    """Return sentences about the units of a figure."""
    return f"The number of a unit is above its picture. Shown: {selection.describe()}."


def frame_key(frames: Sequence[RGB | None]) -> list[KeyEntry]:
    """Return the meanings of the frames that occur."""
    states = {DEAD_COLOUR: "dead unit", SATURATED_COLOUR: "saturated unit"}
    return [KeyEntry(colour, text, is_frame=True) for colour, text in states.items() if colour in frames]


def draw_units(units: Tensor, frames: list[RGB | None] | None = None) -> Tiles:
    """Return pictures of units [N, C, h, w] in rows of eight, or in a square of more than 64, with optional frames."""
    columns = min(len(units), max(MIN_COLUMNS, math.ceil(math.sqrt(len(units)))))
    width = TILE_WIDTH if len(units) <= MAX_FULL_SIZE_UNITS else TILE_WIDTH // 2
    tile_height, tile_width = enlarge(units[:1], width).shape[2:]
    sheet = grid(units, columns, gaps=WHITE, width=width)
    sheet = draw_frames(sheet, frames or [], (tile_height, tile_width), columns)
    return Tiles(sheet, (tile_height, tile_width), columns)
