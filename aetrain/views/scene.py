"""The scene: what views look at. The same images at every step, and one pass through the model that all views share."""

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from typing import Literal

import torch
from torch import Tensor

from aetrain.data.dataset import Images, Prepare
from aetrain.data.noise import Noise
from aetrain.model.autoencoder import Autoencoder
from aetrain.model.records import Forward, Tap
from aetrain.views.probe import Activity, alone, exciting, recorded, slope_at

Norm = Literal["images", "pixels"]

FEWEST = 100  # images of a scene, however large
MOST_PIXELS = 4_000_000  # of all images of a scene: all activations of all layers are kept while it is looked at
SPREAD = 256  # images whose covariance is the measure of how far a change goes
SEED = 1  # of the generators of noise, prior draws and crops, so that every look shows the same


@dataclass(frozen=True, eq=False)
class Scene:
    """A model in evaluation mode, test images, and how they are corrupted.

    Looking changes nothing: no gradient is kept, and what is random comes from generators that start from the
    same seed at every look, never from the global one that training uses.
    """

    model: Autoencoder
    x: Tensor  # [N, C, H, W] in [0, 1]
    labels: Tensor | None  # [N]
    noise: Noise
    epoch: int
    names: tuple[str, ...] = ()  # of the classes
    _kept: dict[tuple[str, ...], tuple[int, Tensor | None]] = field(default_factory=dict, init=False, repr=False)

    def __post_init__(self) -> None:
        self.model.eval()

    @cached_property
    def _pass(self) -> tuple[Forward, dict[str, Activity]]:
        return recorded(self.model, self.x)

    @property
    def out(self) -> Forward:
        """One pass over the clean images."""
        return self._pass[0]

    @property
    def activity(self) -> dict[str, Activity]:
        """What the units of each layer did in that pass, by the layer's name."""
        return self._pass[1]

    @cached_property
    def layers(self) -> list[Tap]:
        """The layers of units, from picture to picture."""
        return self.model.layers()

    @property
    def z(self) -> Tensor:
        """The codes of the clean images, [N, D]: the mean code where it is random."""
        return self.out.code.z

    @cached_property
    def x_in(self) -> Tensor:
        """What the encoder sees, [N, C, H, W]: the very tensor `x` where there is no noise."""
        return self.noise(self.x, self.generator())

    @cached_property
    def mean(self) -> Tensor:
        """The mean image, [C, H, W]."""
        return self.x.mean(0)

    def exciting(self, tap: Tap, count: int, norm: Norm = "images") -> Tensor | None:
        """The picture of norm 1 that excites each of a layer's first units most, [U, C, h, w], of what it sees.

        It is a change of the mean image by as much as images differ from it. Of all changes of one length by `pixels`,
        or of all that are equally far by `images`: by |A^-1 d| with A A^T the covariance of the scene's images, so
        that it goes where images do, and not into what they never have. None where no slope is known.
        """
        units = torch.arange(min(count, self.activity[tap.name].values.shape[1]), device=self.x.device)
        return self._once(("exciting", tap.name, norm), units, lambda: self._exciting(tap, units, norm))

    def _exciting(self, tap: Tap, units: Tensor, norm: Norm) -> Tensor | None:
        if tap.weights is not None:
            return exciting(self.model, tap, units, self.mean, 1, towards=torch.clone)
        sight = self.sight(tap)
        differ = (self.x - self.mean)[:, :, *sight]  # [N, C, h, w]
        radius = float(differ.flatten(1).norm(dim=1).mean())
        some = differ[:SPREAD].flatten(1)

        def towards(slope: Tensor) -> Tensor:
            if norm == "pixels":
                return slope
            uphill = torch.zeros_like(slope)
            uphill[:, :, *sight] = (slope[:, :, *sight].flatten(1) @ some.t() @ some).view_as(slope[:, :, *sight])
            return uphill

        pictures = exciting(self.model, tap, units, self.mean, radius, towards)
        return None if pictures is None else pictures[:, :, *sight]

    def alone(self, tap: Tap, units: Tensor) -> Tensor:
        """What each unit [U] paints when it alone is active, as a change [U, C, H, W] of what no unit paints."""
        return alone(self.model, tap, self.activity[tap.name], units, self.mean)

    def sight(self, tap: Tap) -> tuple[slice, slice]:
        """The rows and columns of the picture that a unit sees; of maps, the one in the middle."""
        _, _, height, width = self.x.shape
        if self.activity[tap.name].values.dim() < 4:
            return slice(0, height), slice(0, width)
        units = torch.arange(min(16, self.activity[tap.name].values.shape[1]), device=self.x.device)

        slope = self._once(
            ("sight", tap.name), units, lambda: slope_at(self.model, tap, units, self.x[units % len(self.x)])
        )
        seen = torch.ones(height, width) if slope is None else (slope != 0).flatten(0, 1).any(0)  # [H, W]
        rows, columns = seen.any(1).nonzero().flatten().tolist(), seen.any(0).nonzero().flatten().tolist()
        if not rows:  # maps that are still everywhere
            return slice(0, height), slice(0, width)
        return slice(rows[0], rows[-1] + 1), slice(columns[0], columns[-1] + 1)

    def _once(self, what: tuple[str, ...], units: Tensor, find: Callable[[], Tensor | None]) -> Tensor | None:
        """What is found for a layer's first units, kept for other views that ask for as many, or for fewer."""
        if what not in self._kept or self._kept[what][0] < len(units):
            self._kept[what] = len(units), find()
        found = self._kept[what][1]
        return None if found is None else found[: len(units)]

    def named(self, label: int) -> str:
        """A class in words, or its number where it has none."""
        return self.names[label] if 0 <= label < len(self.names) else str(label)

    @torch.no_grad()
    def reconstruct(self, x_in: Tensor) -> Tensor:
        """Images through the code and back, [B, C, H, W] in [0, 1]."""
        return self.model.reconstruct(x_in)

    @torch.no_grad()
    def paint(self, z: Tensor) -> Tensor:
        """The pictures of bare codes [B, D]: [B, C, H, W] in [0, 1]."""
        return self.model.paint(z)

    @torch.no_grad()
    def possible(self, z: Tensor) -> Tensor:
        """Codes [B, D] that the model could have made, near to any numbers [B, D]: no unit beyond what images do."""
        low, high = self.z.min(0).values, self.z.max(0).values
        return self.model.nearest(z.to(self.z.dtype).clamp(low, high))

    @torch.no_grad()
    def draw(self, count: int) -> Tensor | None:
        """Codes [count, D] from the prior, or None where the family has none."""
        return self.model.prior(count, self.generator())

    def generator(self) -> torch.Generator:
        """A source of random numbers on the images' device, at its start."""
        return torch.Generator(self.x.device).manual_seed(SEED)


def scenes(
    model: Autoencoder, images: Images, prepare: Prepare, noise: Noise, count: int = 1000
) -> Callable[[int], Scene]:
    """The scene of each epoch: a model and the first `count` images, fewer of large ones, which are prepared once."""
    shown = images[: max(FEWEST, min(count, MOST_PIXELS // images.pixels[0].numel()))]
    x = prepare(shown.pixels, torch.Generator(shown.pixels.device).manual_seed(SEED))
    return lambda epoch: Scene(model, x, shown.labels, noise, epoch, shown.names)
