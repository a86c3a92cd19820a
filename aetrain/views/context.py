"""The input of all views: a model, the same images at every step, and one forward pass that the views share.

Shapes: N images, C channels, H height, W width, D units of the code, U units of a layer, h x w pixels that a unit sees.
"""

import copy
import math
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from typing import Literal

import torch
from torch import Tensor

from aetrain.data.examples import Examples, Prepare, fill_missing
from aetrain.data.noise import Noise
from aetrain.model.autoencoder import Autoencoder
from aetrain.model.pca import PCA
from aetrain.model.records import Forward, Tap
from aetrain.views.linear_baseline import LinearBaseline, baseline_of, spread_index
from aetrain.views.render import bounding_box
from aetrain.views.unit_activations import (
    UnitActivations,
    input_gradient,
    max_activating_input,
    record_activations,
    single_unit_effect,
)
from aetrain.views.unit_selection import UnitSelection, select_by_importance, select_first, unit_importance

Norm = Literal["data_covariance", "pixels"]

MIN_IMAGES = 100  # of a context, however large the images are
MAX_PIXELS = 4_000_000  # of all images of a context, since the activations of all layers stay in memory for the views
COVARIANCE_IMAGES = 256  # images whose covariance is the norm `data_covariance`
RECEPTIVE_FIELD_UNITS = 16  # channels whose gradients together give the receptive field of a layer
SEED = 1  # of the generators of noise, prior samples and crops


@dataclass(frozen=True, eq=False)
class ViewContext:
    """A model in evaluation mode, images, and the noise that corrupts them.

    Views do not change training: they keep no gradient, and their random numbers come from generators that start from
    the same seed each time, never from the global generator.
    """

    model: Autoencoder
    x: Tensor  # [N, C, H, W] in [0, 1]
    labels: Tensor | None  # [N]
    noise: Noise
    epoch: int
    class_names: tuple[str, ...] = ()
    split: str = "test"  # of the images: test or validation
    feature_names: tuple[str, ...] = ()  # of vectors, such as words
    targets: Tensor | None = None  # [N, C, H, W] complete values, where some of `x` are hidden
    make_baseline: Callable[[], LinearBaseline] | None = None  # of vectors, fitted to the training examples
    fit_pca: Callable[[], PCA | None] | None = None  # the baseline of the metrics, which is fitted once for a run
    rows: Tensor | None = None  # [N] the places of the examples in their data set
    is_final: bool = False  # whether the pictures are the figures of a finished run, which have no earlier ones
    # Tensors of some units of a layer, with the numbers of the units.
    _cache: dict[tuple[str, ...], tuple[Tensor, Tensor | None]] = field(default_factory=dict, init=False, repr=False)

    def __post_init__(self) -> None:
        self.model.eval()

    def for_figures(self) -> "ViewContext":
        """Return this context with `is_final` set; both share the forward pass and the results for units."""
        self._forward  # noqa: B018, computed before the copy
        context = copy.copy(self)
        object.__setattr__(context, "is_final", True)
        return context

    @cached_property
    def _forward(self) -> tuple[Forward, dict[str, UnitActivations]]:
        return record_activations(self.model, self.x)

    @property
    def out(self) -> Forward:
        """The forward pass over the clean images."""
        return self._forward[0]

    @property
    def activations(self) -> dict[str, UnitActivations]:
        """The activations of each layer's units in that pass, by the layer's name."""
        return self._forward[1]

    @cached_property
    def unit_layers(self) -> list[Tap]:
        """The layers of units, from the encoder's first layer to the decoder's last."""
        return self.model.unit_layers()

    @property
    def code_tap(self) -> Tap:
        """The layer of the code's units."""
        return self.activations["code"].tap

    @property
    def z(self) -> Tensor:
        """The codes [N, D] of the clean images: the mean code where the code is random."""
        return self.out.code.z

    @cached_property
    def x_in(self) -> Tensor:
        """The input of the encoder, [N, C, H, W]: images with noise, or the tensor `x` itself without noise."""
        return self.noise(self.x, self.make_generator())

    @cached_property
    def mean_image(self) -> Tensor:
        """The mean of the images, [C, H, W]: of the known values, where some are missing, and 0 where all are."""
        return self.x.nanmean(0).nan_to_num(0.0) if self.model.has_missing else self.x.mean(0)

    @cached_property
    def filled(self) -> Tensor:
        """The images with their mean in place of missing values, [N, C, H, W]; `x` itself where none is missing."""
        return fill_missing(self.x, self.mean_image) if self.model.has_missing else self.x

    @property
    def complete(self) -> Tensor:
        """What reconstructions are compared with, [N, C, H, W]: `targets`, or `x`; NaN is unknown."""
        return self.x if self.targets is None else self.targets

    @cached_property
    def baseline(self) -> LinearBaseline:
        """The linear code of the same size: PCA, or LSA of counts; of the examples themselves without training ones."""
        if self.make_baseline is not None:
            return self.make_baseline()
        return LinearBaseline.fit(self.x, self.model.code_dim, self.model.kind)

    def pca_reconstruct(self, x_in: Tensor) -> Tensor | None:
        """Return PCA's reconstructions [B, C, H, W] of images x_in, with as many components as the code has units.

        The mean takes the place of a missing value. None where PCA is left out, because the images are too large, and
        where it would copy them, because the code has as many units as an image has pixels.
        """
        pca = self.fit_pca() if self.fit_pca is not None else None
        if pca is None or self.model.code_dim >= x_in[0].numel():
            return None
        return pca.reconstruct(fill_missing(x_in, pca.mean) if self.model.has_missing else x_in)

    def select_units(self, tap: Tap, count: int) -> UnitSelection:
        """Return the units of a layer that a picture shows, at most `count`.

        During training they are the first units of the layer, so that each keeps its position and can be watched as it
        forms. In final pictures they are the most important live units.
        """
        return self.rank_units(tap, count) if self.is_final else select_first(self.activations[tap.name], count)

    def rank_units(self, tap: Tap, count: int) -> UnitSelection:
        """Return the `count` most important units of a layer (`unit_importance`); in final pictures, live ones."""
        activations, importance = self.activations[tap.name], self.unit_importance(tap)
        return select_by_importance(activations, self.out.code, importance, count, live_only=self.is_final)

    def unit_importance(self, tap: Tap) -> Tensor:
        """Return how much each unit of a layer matters, [U] (`aetrain.views.unit_selection.unit_importance`)."""
        activations = self.activations[tap.name]
        units = torch.arange(activations.values.shape[1], device=self.x.device)
        importance = self._cached(
            ("unit_importance", tap.name),
            units,
            lambda: unit_importance(self.model, activations, self.out.code, self.mean_image),
        )
        assert importance is not None
        return importance

    def max_activating_input(self, tap: Tap, units: Tensor | int, norm: Norm = "data_covariance") -> Tensor | None:
        """Return the input of norm 1 that activates each of a layer's `units` [U] most: [U, C, h, w].

        A number stands for that many first units of the layer, or for all if it has fewer.

        The input is a change d of the mean image, as large as the mean distance of the images from their mean.
        `pixels` measures d by |d|. `data_covariance` measures d by |A^-1 d|, where A A^T is the covariance of the
        images: directions in which images vary cost less than directions in which no image varies. The result is cut
        to the unit's receptive field. Return None where the unit has no gradient.
        """
        if isinstance(units, int):
            units = select_first(self.activations[tap.name], units).units
        return self._cached(
            ("max_activating_input", tap.name, norm), units, lambda: self._max_activating_input(tap, units, norm)
        )

    def _max_activating_input(self, tap: Tap, units: Tensor, norm: Norm) -> Tensor | None:
        if tap.weights is not None:
            return max_activating_input(self.model, tap, units, self.mean_image, 1, ascent_direction=torch.clone)
        field_of_view = self.receptive_field(tap)
        deviations = (self.filled - self.mean_image)[:, :, *field_of_view]  # [N, C, h, w]
        radius = float(deviations.flatten(1).norm(dim=1).mean())
        samples = deviations[:COVARIANCE_IMAGES].flatten(1)  # [M, C * h * w]

        def ascent_direction(gradient: Tensor) -> Tensor:
            if norm == "pixels":
                return gradient
            inside = gradient[:, :, *field_of_view]
            direction = torch.zeros_like(gradient)
            direction[:, :, *field_of_view] = (inside.flatten(1) @ samples.t() @ samples).view_as(inside)
            return direction

        pictures = max_activating_input(self.model, tap, units, self.mean_image, radius, ascent_direction)
        return None if pictures is None else pictures[:, :, *field_of_view]

    def single_unit_effect(self, tap: Tap, units: Tensor) -> Tensor:
        """Return the change [U, C, H, W] of the decoded image when each of `units` [U] alone is active in its layer."""
        return single_unit_effect(self.model, tap, self.activations[tap.name], units, self.mean_image)

    def receptive_field(self, tap: Tap) -> tuple[slice, slice]:
        """Return the rows and columns of the image that a unit sees; for feature maps, the unit in their middle."""
        _, _, height, width = self.x.shape
        if self.activations[tap.name].values.dim() < 4:
            return slice(0, height), slice(0, width)
        num_units = min(RECEPTIVE_FIELD_UNITS, self.activations[tap.name].values.shape[1])
        units = torch.arange(num_units, device=self.x.device)
        gradient = self._cached(
            ("receptive_field", tap.name),
            units,
            lambda: input_gradient(self.model, tap, units, self.x[units % len(self.x)]),
        )
        if gradient is None:
            return slice(0, height), slice(0, width)
        return bounding_box((gradient != 0).flatten(0, 1).any(0)) or (slice(0, height), slice(0, width))

    def _cached(self, key: tuple[str, ...], units: Tensor, compute: Callable[[], Tensor | None]) -> Tensor | None:
        """Return the rows of a layer's `units`; compute them where the cache lacks some of these units."""
        if key not in self._cache or not bool(torch.isin(units, self._cache[key][0]).all()):
            self._cache[key] = units, compute()
        cached_units, result = self._cache[key]
        if result is None:
            return None
        return result[(units[:, None] == cached_units).to(torch.uint8).argmax(1)]

    def class_labels(self, index: Tensor) -> list[str]:
        """Return the names of the classes of images `index` [K], or [] where the images have no labels."""
        return [] if self.labels is None else [self.class_name(label) for label in self.labels[index].tolist()]

    def example_name(self, index: int) -> str:
        """Return the name of an example: its class, if it has one, and its place in the data set."""
        number = index if self.rows is None else int(self.rows[index])
        return f"row {number}" if self.labels is None else f"{self.class_name(int(self.labels[index]))}, row {number}"

    def class_name(self, label: int) -> str:
        """Return the name of a class, or its number where it has no name."""
        return self.class_names[label] if 0 <= label < len(self.class_names) else str(label)

    @torch.no_grad()
    def reconstruct(self, x_in: Tensor) -> Tensor:
        """Return the reconstructions of images x_in [B, C, H, W], in [0, 1]."""
        return self.model.reconstruct(x_in)

    @torch.no_grad()
    def expected_values(self, x_in: Tensor, x: Tensor) -> Tensor:
        """Return the reconstructions of vectors x_in [B, 1, 1, D]; of counts with the totals of x [B, 1, 1, D]."""
        return self.model.likelihood.expected(self.model.decode(self.model.encode(x_in)), x)

    @torch.no_grad()
    def decode_pixels(self, z: Tensor) -> Tensor:
        """Return the images [B, C, H, W] in [0, 1] that the model decodes from codes z [B, D]."""
        return self.model.decode_pixels(z)

    @torch.no_grad()
    def project_to_data_range(self, z: Tensor) -> Tensor:
        """Return codes [B, D] near z [B, D] that the model could produce.

        Each unit is clamped to its range over the images; then the model projects the code (sparse, or of codewords).
        """
        low, high = self.z.min(0).values, self.z.max(0).values
        return self.model.project_to_code_space(z.to(self.z).clamp(low, high))

    @torch.no_grad()
    def sample_prior(self, count: int) -> Tensor | None:
        """Return `count` codes [count, D] from the prior, the same at every call; None where the model has no prior."""
        return self.model.prior(count, self.make_generator())

    def make_generator(self) -> torch.Generator:
        """Return a new random number generator with seed `SEED` on the device of the images."""
        return torch.Generator(self.x.device).manual_seed(SEED)


def context_factory(
    model: Autoencoder,
    images: Examples,
    prepare: Prepare,
    noise: Noise,
    count: int = 1000,
    split: str = "test",
    train: Examples | None = None,
    fit_pca: Callable[[], PCA | None] | None = None,
) -> Callable[[int], ViewContext]:
    """Return the function that makes the context of an epoch from a model and `count` images or examples.

    They are the first images, or evenly spaced examples of other data, whose files are often sorted by class. A linear
    baseline is fitted to `train`, and `fit_pca` returns that of the metrics. The images are prepared once. Fewer of
    large images are used: `MAX_PIXELS` in all, but at least `MIN_IMAGES` images.
    """
    count = max(MIN_IMAGES, min(count, MAX_PIXELS // math.prod(images.values.shape[1:])))
    selected = images[:count] if images.kind == "image" else images[spread_index(len(images), count).to(images.device)]
    x = prepare(selected.values, torch.Generator(selected.device).manual_seed(SEED))
    targets = None if selected.targets is None else prepare(selected.targets)
    baseline = baseline_of(train, prepare, model.code_dim) if train is not None and len(train) else None
    names = selected.class_names, split, selected.feature_names
    others = targets, baseline
    return lambda epoch: ViewContext(model, x, selected.labels, noise, epoch, *names, *others, fit_pca, selected.rows)
