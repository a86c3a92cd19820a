"""Encoders and decoders: base classes whose defaults draw nothing, and wrappers that make any nn.Module one.

Shapes: B images in a batch, C channels, H height, W width, F features, D units of the code.
"""

import math

from torch import Tensor, nn

from aetrain.model.codes import Code
from aetrain.model.records import Encoded, Tap


class Encoder(nn.Module):
    """A module that maps examples [B, C, H, W] to features. A subclass sets `num_features` and defines `forward`."""

    num_features: int  # F
    passes_pixels: bool = False  # whether the features are the pixels themselves, so that the code is the first layer
    linear: bool = False  # whether the features are an affine function of the pixels
    needs_images: bool = False  # whether neighbouring pixels have a meaning to it, as for convolutions
    reads_missing: bool = False  # whether it takes missing values (NaN); others get zeros in their place

    def forward(self, x: Tensor) -> Encoded:
        """Return the features [B, F] of images x, and the hidden activations in the shapes of the taps."""
        raise NotImplementedError(f"{type(self).__name__} defines no forward")

    def first_layer_weights(self) -> Tensor | None:
        """Return the weights of each first-layer unit as a picture [units, C, h, w]; None where there is no picture."""
        return None

    def taps(self) -> list[Tap]:
        """Return the taps of the hidden layers, first layer first, one for each of `Encoded.hidden`, or none."""
        return []


class Decoder(nn.Module):
    """A module that maps a code to the parameters of the likelihood, [B, C, H, W]. A subclass defines `forward`."""

    linear: bool = False  # whether the parameters are an affine function of the code

    def forward(self, code: Code) -> Tensor:
        """Return the parameters of the likelihood, [B, C, H, W], for `code.z` [B, D]."""
        raise NotImplementedError(f"{type(self).__name__} defines no forward")

    @property
    def output_bias(self) -> nn.Parameter | None:
        """The bias of the last layer, one number a pixel or one a channel; None where it has none."""
        return None

    def taps(self) -> list[Tap]:
        """Return the taps of the hidden layers, the one that reads the code first, or none."""
        return []


class ModuleEncoder(Encoder):
    """Any module from images [B, C, H, W] to `num_features` numbers a image, [B, ...], as an encoder."""

    def __init__(self, module: nn.Module, num_features: int) -> None:
        super().__init__()
        self.module = module
        self.num_features = num_features

    def forward(self, x: Tensor) -> Encoded:
        """Return the module's output, flattened to [B, F]."""
        return Encoded(hidden=(), features=self.module(x).flatten(1))


class ModuleDecoder(Decoder):
    """Any module from codes [B, D] to as many numbers as an image has pixels, [B, ...], as a decoder."""

    def __init__(self, module: nn.Module, image_shape: tuple[int, int, int]) -> None:
        super().__init__()
        self.module = module
        self.image_shape = image_shape

    def forward(self, code: Code) -> Tensor:
        """Return the module's output in the shape of an image, [B, C, H, W]."""
        return self.module(code.z).flatten(1).unflatten(1, self.image_shape)


def check_networks(
    encoder: Encoder, decoder: Decoder, encoded: Encoded, decoded: Tensor, image_shape: tuple[int, int, int]
) -> None:
    """Raise ValueError where an encoder or a decoder does not keep its contract on the batch of a trial pass."""
    name, batch = type(encoder).__name__, len(decoded)
    features = tuple(encoded.features.shape)
    if len(features) != 2 or features[0] != batch or features[1] != encoder.num_features:
        raise ValueError(
            f"the encoder {name} states num_features={encoder.num_features} but returns features {list(features)}: "
            f"return [B, {encoder.num_features}]"
        )
    taps, hidden = len(encoder.taps()), len(encoded.hidden)
    if taps not in (0, hidden):
        raise ValueError(
            f"the encoder {name} has {taps} taps for {hidden} hidden activations: return one tap for each, or none"
        )
    weights = encoder.first_layer_weights()
    if weights is not None and weights.dim() != 4:
        raise ValueError(
            f"first_layer_weights() of the encoder {name} returns {list(weights.shape)}: return pictures "
            "[units, C, h, w], or None"
        )
    if tuple(decoded.shape[1:]) != image_shape:
        raise ValueError(
            f"the decoder {type(decoder).__name__} returns {list(decoded.shape)}: return [B, {image_shape[0]}, "
            f"{image_shape[1]}, {image_shape[2]}]"
        )
    bias, channels = decoder.output_bias, image_shape[0]
    if bias is not None and bias.numel() not in (channels, math.prod(image_shape)):
        raise ValueError(
            f"output_bias of the decoder {type(decoder).__name__} has {bias.numel()} numbers: one a pixel "
            f"({math.prod(image_shape)}) or one a channel ({channels}), or return None"
        )
