"""The autoencoder: encoder, bottleneck, decoder and likelihood, put together once for every family."""

from collections.abc import Iterator
from dataclasses import replace
from typing import Protocol

import torch
from torch import Tensor, nn

from aetrain.model.bottlenecks import Bottleneck
from aetrain.model.likelihoods import Likelihood
from aetrain.model.records import Code, Encoded, Forward, GaussianCode, Tap


class Encoder(Protocol):
    """Images [B, C, H, W] to features."""

    def __call__(self, x: Tensor) -> Encoded: ...

    def first_layer(self) -> Tensor | None:
        """Each first-layer unit's weights as a picture [units, C, h, w]; None where the code is the first layer."""
        ...

    def taps(self) -> list[Tap]:
        """Its layers of hidden units, first layer first."""
        ...


class Decoder(Protocol):
    """A code to the parameters of the likelihood, [B, C, H, W]."""

    def __call__(self, code: Code) -> Tensor: ...

    def parameters(self) -> Iterator[nn.Parameter]: ...

    @property
    def output_bias(self) -> nn.Parameter:
        """What it adds to its last layer: one number a pixel, or one a channel."""
        ...

    def taps(self) -> list[Tap]:
        """Its layers of hidden units, first layer first."""
        ...


class Autoencoder(nn.Module):
    """Maps pixels to a code and back; pixels are in [0, 1] on both sides.

    The code is `sparsifier(code_activation(z))` of the bottleneck's z. In training mode a random code is drawn, in
    evaluation mode it is its mean, so that looking twice shows the same.
    """

    def __init__(
        self,
        encoder: Encoder,
        bottleneck: Bottleneck,
        decoder: Decoder,
        likelihood: Likelihood,
        code_activation: nn.Module,
        sparsifier: nn.Module,
        image_shape: tuple[int, int, int],
        scale: tuple[float, float],
    ) -> None:
        super().__init__()
        self.image_shape = image_shape
        self.encoder = encoder
        self.bottleneck = bottleneck
        self.decoder = decoder
        self.likelihood = likelihood
        self.finish = nn.Sequential(code_activation, sparsifier)
        self.low, self.high = scale

    @property
    def code_dim(self) -> int:
        """D, the number of units of the code."""
        return self.bottleneck.code_dim

    def encode(self, x: Tensor) -> Code:
        """The code of images [B, C, H, W]."""
        return self._encode(x)[1]

    def mean_code(self, x: Tensor) -> Tensor:
        """The code [B, D] of images without what is random in it: in evaluation mode that of `encode`."""
        code = self.encode(x)
        return self.finish(code.mean) if isinstance(code, GaussianCode) else code.z

    def _encode(self, x: Tensor) -> tuple[Encoded, Code]:
        if (self.low, self.high) != (0, 1):
            x = self.low + (self.high - self.low) * x
        encoded = self.encoder(x)
        code = self.bottleneck(encoded.features)
        return encoded, replace(code, z=self.finish(code.z), where=encoded.where)

    def decode(self, code: Code | Tensor) -> Tensor:
        """Parameters of the likelihood [B, C, H, W], from a code or from bare units [B, D]."""
        return self.decoder(Code(z=code) if isinstance(code, Tensor) else code)

    def forward(self, x_in: Tensor, x: Tensor | None = None) -> Forward:
        """One pass: encode `x_in`, decode, with `x` (or `x_in` itself) as the target."""
        encoded, code = self._encode(x_in)
        return Forward(
            x=x_in if x is None else x, x_in=x_in, hidden=encoded.hidden, code=code, decoded=self.decode(code)
        )

    def first_layer(self) -> Tensor:
        """The weights of each unit that reads pixels, as a picture: [units, C, h, w]."""
        weights = self.encoder.first_layer()
        return self.bottleneck.project.weight.unflatten(1, self.image_shape) if weights is None else weights

    def layers(self) -> list[Tap]:
        """Every layer of units on the way from picture to picture: the encoder's, the code, the decoder's."""
        hidden = self.encoder.taps()
        linear = not hidden and self.encoder.first_layer() is None
        code = Tap(name="code", module=self.finish, weights=self.first_layer() if linear else None)
        return [*hidden, *self.bottleneck.taps(), code, *self.decoder.taps()]

    def nearest(self, z: Tensor) -> Tensor:
        """Codes that the family could have made, near to any numbers [B, D]: sparse or from its book, as its are."""
        return self.bottleneck.nearest(self.finish[1](z))

    def paint(self, code: Code | Tensor) -> Tensor:
        """The picture of a code: pixels in [0, 1], [B, C, H, W]."""
        return self.likelihood.mean(self.decode(code)).clamp(0, 1)

    def reconstruct(self, x: Tensor) -> Tensor:
        """Images through the code and back: pixels in [0, 1], [B, C, H, W]."""
        return self.paint(self.encode(x))

    def sample(self, code: Code, generator: torch.Generator | None = None) -> Code:
        """The same images' code, drawn at random where the family's code is random."""
        return replace(code, z=self.finish(self.bottleneck.sample(code, generator)))

    def prior(self, count: int, generator: torch.Generator | None = None) -> Tensor | None:
        """Codes [count, D] of images that nobody has seen, or None where the family cannot draw them."""
        z = self.bottleneck.prior(count, generator)
        return None if z is None else self.finish(z)
