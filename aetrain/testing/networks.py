"""Contract checks of encoders and decoders."""

from collections.abc import Callable
from functools import partial
from typing import cast

import torch
from torch import Tensor, nn

from aetrain.model.autoencoder import Autoencoder
from aetrain.model.bottlenecks import Deterministic
from aetrain.model.codes import Code
from aetrain.model.likelihoods import Bernoulli
from aetrain.model.networks import Decoder, Encoder, ModuleDecoder, ModuleEncoder
from aetrain.testing.common import IMAGE_SHAPE, expect, expect_close, expect_gradients, expect_reloadable, random_images
from aetrain.views.unit_activations import record_activations

CODE_DIM = 4


def check_encoder(
    make_encoder: Callable[[tuple[int, int, int]], Encoder], image_shape: tuple[int, int, int] = IMAGE_SHAPE
) -> None:
    """Check an encoder that a function makes for an image shape.

    Features and hidden activations are those that it states, per image, deterministic in evaluation, differentiable,
    and the same after saving and loading.
    """
    encoder = make_encoder(image_shape)
    name, pixels = type(encoder).__name__, image_shape[0] * image_shape[1] * image_shape[2]
    decoder = ModuleDecoder(nn.Linear(CODE_DIM, pixels), image_shape)
    model = _autoencoder(encoder, decoder, encoder.num_features, image_shape).eval()
    model.check()
    x = random_images(5, image_shape)
    features = encoder(x).features
    _check_rows(name, lambda batch: encoder(batch).features, x)
    if any(parameter.requires_grad for parameter in encoder.parameters()):
        expect_gradients(features.square().sum(), encoder, f"the features of {name}")
    expect(tuple(encoder(x[:0]).features.shape) == (0, encoder.num_features), f"{name} fails on an empty batch")
    out, activations = record_activations(model, x)
    for tap, hidden in zip(encoder.taps(), out.hidden if encoder.taps() else (), strict=True):
        expect_close(activations[tap.name].values, hidden, f"the tap {tap.name} of {name} is not its hidden activation")
    compute = cast(Callable[[nn.Module], Tensor], lambda module: module(x).features)
    expect_reloadable(partial(make_encoder, image_shape), compute, name)


def check_decoder(
    make_decoder: Callable[[int, tuple[int, int, int]], Decoder],
    image_shape: tuple[int, int, int] = IMAGE_SHAPE,
    tied: bool = False,
) -> None:
    """Check a decoder that a function makes for a code size and an image shape, as `check_encoder` does.

    The weights of a `tied` decoder are saved with its encoder.
    """
    decoder = make_decoder(CODE_DIM, image_shape)
    name = type(decoder).__name__
    pixels = image_shape[0] * image_shape[1] * image_shape[2]
    model = _autoencoder(ModuleEncoder(nn.Flatten(), pixels), decoder, pixels, image_shape).eval()
    model.check()
    z = torch.randn(5, CODE_DIM, generator=torch.Generator().manual_seed(0))
    _check_rows(name, lambda batch: decoder(Code(z=batch)), z)
    expect_gradients(decoder(Code(z=z)).square().sum(), decoder, f"the output of {name}")
    expect(tuple(decoder(Code(z=z[:0])).shape) == (0, *image_shape), f"{name} fails on an empty batch")
    compute = cast(Callable[[nn.Module], Tensor], lambda module: module(Code(z=z)))
    if not tied:
        expect_reloadable(partial(make_decoder, CODE_DIM, image_shape), compute, name)


def _autoencoder(
    encoder: Encoder, decoder: Decoder, num_features: int, image_shape: tuple[int, int, int]
) -> Autoencoder:
    bottleneck = Deterministic(num_features, CODE_DIM)
    return Autoencoder(encoder, bottleneck, decoder, Bernoulli(), nn.Identity(), nn.Identity(), image_shape, (0.0, 1.0))


@torch.no_grad()
def _check_rows(name: str, function: Callable[[Tensor], Tensor], rows: Tensor) -> None:
    """Expect that the result of a row does not depend on the other rows, and is the same at every call."""
    batch = function(rows)
    expect(torch.equal(batch, function(rows)), f"{name} differs between two calls in evaluation mode")
    single = torch.cat([function(row[None]) for row in rows])
    expect_close(single, batch, f"{name} gives an example another result in another batch")
