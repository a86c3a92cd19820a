"""The scene: what views look at. The same images at every step, and one pass through the model that all views share."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from aetrain.data.dataset import Images, Prepare
from aetrain.data.noise import Noise
from aetrain.model.autoencoder import Autoencoder
from aetrain.model.records import Forward

SEED = 1  # of the generators of noise, prior draws and crops, so that every look shows the same


@dataclass(frozen=True, eq=False)
class Scene:
    """A model in evaluation mode, test images, and how they are corrupted.

    Looking changes nothing: nothing is differentiated, and what is random comes from generators that start from the
    same seed at every look, never from the global one that training uses.
    """

    model: Autoencoder
    x: Tensor  # [N, C, H, W] in [0, 1]
    labels: Tensor | None  # [N]
    noise: Noise
    epoch: int

    def __post_init__(self) -> None:
        self.model.eval()

    @cached_property
    @torch.no_grad()
    def out(self) -> Forward:
        """One pass over the clean images."""
        out = self.model(self.x)
        assert isinstance(out, Forward)
        return out

    @property
    def z(self) -> Tensor:
        """The codes of the clean images, [N, D]: the mean code where it is random."""
        return self.out.code.z

    @cached_property
    def x_in(self) -> Tensor:
        """What the encoder sees, [N, C, H, W]: the very tensor `x` where there is no noise."""
        return self.noise(self.x, self.generator())

    @cached_property
    @torch.no_grad()
    def weights(self) -> Tensor:
        """The first layer's weights as pictures, [units, C, h, w]."""
        return self.model.first_layer().detach()

    @torch.no_grad()
    def reconstruct(self, x_in: Tensor) -> Tensor:
        """Images through the code and back, [B, C, H, W] in [0, 1]."""
        return self.model.reconstruct(x_in)

    @torch.no_grad()
    def paint(self, z: Tensor) -> Tensor:
        """The pictures of bare codes [B, D]: [B, C, H, W] in [0, 1]."""
        return self.model.paint(z)

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
    """The scene of each epoch: a model and the first `count` images, which are prepared once."""
    shown = images[:count]
    x = prepare(shown.pixels, torch.Generator(shown.pixels.device).manual_seed(SEED))
    return lambda epoch: Scene(model, x, shown.labels, noise, epoch)
