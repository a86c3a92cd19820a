"""The autoencoder: one class for every family, made of an encoder, a bottleneck, a decoder and a likelihood.

An example is an image [C, H, W] or a vector [1, 1, W] of W features.
Shapes: B examples in a batch, C channels, H height, W width, D units of the code.
"""

import math
from dataclasses import replace

import torch
from torch import Tensor, nn

from aetrain.model.bottlenecks import Bottleneck
from aetrain.model.codes import Code
from aetrain.model.layers import are_linear
from aetrain.model.likelihoods import Likelihood
from aetrain.model.networks import Decoder, Encoder, check_networks
from aetrain.model.records import Encoded, Forward, Kind, Tap


class Autoencoder(nn.Module):
    """Map examples to a code and back; pixels of images are in [0, 1] on both sides.

    A missing value (NaN) of an example is 0 for the encoder, where `has_missing` is True.
    The code is `sparsifier(code_activation(z))` of the bottleneck's z. A random code is drawn in training mode. In
    evaluation mode it is its mean, so that two passes give the same result.
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
        self.code_transform = nn.Sequential(code_activation, sparsifier)
        self.low, self.high = scale
        self.kind: Kind = "image"
        self.has_missing = False

    @property
    def code_activation(self) -> nn.Module:
        """The activation of the code units."""
        return self.code_transform[0]

    @property
    def sparsifier(self) -> nn.Module:
        """The module after the activation that makes the code sparse; nn.Identity where the code is dense."""
        return self.code_transform[1]

    @property
    def linear(self) -> bool:
        """Tell whether reconstructions are an affine function of the pixels in evaluation mode, as those of PCA are."""
        parts = (self.encoder, self.bottleneck, self.decoder, self.likelihood)
        return all(part.linear for part in parts) and are_linear(self.code_transform)

    @property
    def code_dim(self) -> int:
        """D, the number of units of the code."""
        return self.bottleneck.code_dim

    def forward(self, x_in: Tensor, x: Tensor | None = None) -> Forward:
        """Encode `x_in` [B, C, H, W] and decode its code; the target is `x`, or `x_in` where `x` is None."""
        encoded, code = self._encode(x_in)
        target = x_in if x is None else x
        return Forward(x=target, x_in=x_in, hidden=encoded.hidden, code=code, decoded=self.decode(code))

    def encode(self, x: Tensor) -> Code:
        """Return the code of images x [B, C, H, W]."""
        return self._encode(x)[1]

    def mean_code(self, x: Tensor) -> Tensor:
        """Return the code [B, D] of images x [B, C, H, W] without noise: in evaluation mode, that of `encode`."""
        code = self.encode(x)
        return self.code_transform(code.mean_z) if code.is_random else code.z

    def _encode(self, x: Tensor) -> tuple[Encoded, Code]:
        if self.has_missing and not self.encoder.reads_missing:
            x = x.nan_to_num(0.0)
        if (self.low, self.high) != (0, 1):
            x = self.low + (self.high - self.low) * x
        encoded = self.encoder(x)
        code = self.bottleneck(encoded.features)
        return encoded, replace(code, z=self.code_transform(code.z), pool_indices=encoded.pool_indices)

    def decode(self, code: Code | Tensor) -> Tensor:
        """Return the parameters of the likelihood [B, C, H, W] for a code, or for its units [B, D] alone."""
        return self.decoder(Code(z=code) if isinstance(code, Tensor) else code)

    def decode_pixels(self, code: Code | Tensor) -> Tensor:
        """Return the expected examples [B, C, H, W] of a code, or of its units [B, D] alone: pixels in [0, 1]."""
        mean = self.likelihood.mean(self.decode(code))
        return mean.clamp(0, 1) if self.kind == "image" else mean

    def reconstruct(self, x: Tensor) -> Tensor:
        """Return the reconstructions of examples x [B, C, H, W], [B, C, H, W]: pixels of images in [0, 1]."""
        return self.decode_pixels(self.encode(x))

    def sample(self, code: Code, generator: torch.Generator | None = None) -> Code:
        """Return a random draw of the code of the same images; a code that is not random stays as it is."""
        return replace(code, z=self.code_transform(code.sample(generator)) if code.is_random else code.z)

    def prior(self, count: int, generator: torch.Generator | None = None) -> Tensor | None:
        """Return `count` codes [count, D] drawn from the prior, or None where the bottleneck has no prior."""
        z = self.bottleneck.prior(count, generator)
        return None if z is None else self.code_transform(z)

    def project_to_code_space(self, z: Tensor) -> Tensor:
        """Return codes [B, D] near z [B, D] that the model can produce: sparse ones, or ones made of codewords."""
        return self.bottleneck.project_to_code_space(self.sparsifier(z))

    def first_layer_weights(self) -> Tensor:
        """Return the weights of each unit that reads pixels, as pictures [units, C, h, w].

        Raise ValueError where the encoder states none.
        """
        weights = self._code_weights() if self.encoder.passes_pixels else self.encoder.first_layer_weights()
        if weights is None:
            raise ValueError(f"the encoder {type(self.encoder).__name__} states no first-layer weights")
        return weights

    def _code_weights(self) -> Tensor:
        weight = self.bottleneck.project.weight[:, : math.prod(self.image_shape)]  # of the pixels alone
        return weight.unflatten(1, self.image_shape)

    @torch.no_grad()
    def check(self) -> None:
        """Run one pass over two blank images. Raise ValueError where the encoder or decoder breaks its contract.

        So it is where the settings of the likelihood do not fit the shape of the examples.
        """
        self.likelihood.check(self.image_shape)
        blank = torch.zeros(2, *self.image_shape)
        encoded, code = self._encode(blank)
        check_networks(self.encoder, self.decoder, encoded, self.decode(code), self.image_shape)

    def unit_layers(self) -> list[Tap]:
        """Return the taps of every layer of units: the encoder's, the bottleneck's, the code's, the decoder's."""
        hidden = self.encoder.taps()
        code_weights = self._code_weights() if self.encoder.passes_pixels else None
        code = Tap(name="code", module=self.code_transform, weights=code_weights)
        return [*hidden, *self.bottleneck.taps(), code, *self.decoder.taps()]
