"""Odena et al. (2016), doi:10.23915/distill.00003: repeating values and convolving, beside deconvolution."""

import torch
from evidence import one_of_each_class, pixels, splits_of
from experiments import Outcome
from sheets import rows
from torch import Tensor, nn
from torch.nn import functional as F

from aetrain import api
from aetrain.api import Trained
from aetrain.model.autoencoder import Autoencoder
from aetrain.runs.build import build
from aetrain.runs.train import checked

CLAIM = (
    "Deconvolution is a convolution of the map spread out with zeros. Its kernels overlap unevenly, which shows as a "
    "checkerboard; repeating each value and convolving reconstructs as well and has none by construction."
)
RUNS = {
    "nearest": ["experiment=conv_upsample"],
    "transpose": ["experiment=conv_upsample", "model.up=transpose", "views=none"],
}


def as_convolution(layer: nn.ConvTranspose2d, x: Tensor) -> Tensor:
    """Zeros between the values, then an ordinary convolution with the kernel turned by 180 degrees."""
    stride, kernel, padding, more = layer.stride[0], layer.kernel_size[0], layer.padding[0], layer.output_padding
    batch, channels, height, width = x.shape
    spread = x.new_zeros(batch, channels, (height - 1) * stride + 1, (width - 1) * stride + 1)
    spread[:, :, ::stride, ::stride] = x
    edge = kernel - 1 - padding
    spread = F.pad(spread, (edge, edge + more[1], edge, edge + more[0]))
    return F.conv2d(spread, layer.weight.flip(2, 3).transpose(0, 1), layer.bias)


def checkerboard(pictures: Tensor) -> float:
    """The power at the period of two pixels, along rows or columns, over the mean power of all other frequencies."""
    power = torch.fft.fft2(pictures - pictures.mean((2, 3), keepdim=True)).abs().square().mean((0, 1))  # [H, W]
    height, width = power.shape
    alternating = torch.zeros_like(power, dtype=torch.bool)
    alternating[height // 2, :] = alternating[:, width // 2] = True
    return (power[alternating].mean() / power[~alternating].mean()).item()


def untrained(trained: Trained) -> Autoencoder:
    """The run's model as its seed drew it."""
    config, _, said = api.composed([f"run={trained.directory}", "device=cpu", "mode=eval"])
    return build(checked(config, said)).model.eval()


def stretched(decoded: Tensor) -> Tensor:
    """Each picture from its own darkest to its own lightest value."""
    low, high = decoded.amin((1, 2, 3), True), decoded.amax((1, 2, 3), True)
    return (decoded - low) / (high - low)


@torch.no_grad()
def check(runs: dict[str, Trained]) -> Outcome:
    """Equal to a convolution; at the start a checkerboard only with deconvolution; errors within a fifth."""
    nearest, transpose = runs["nearest"], runs["transpose"]
    fresh = {name: untrained(run) for name, run in runs.items()}
    data = splits_of(nearest)
    x, shown = pixels(data.test, 1000), one_of_each_class(data.test)
    layer = transpose.model.decoder.layers[-1]
    maps = torch.rand(4, layer.in_channels, 14, 14)
    figures = {
        "test SSE, repeating values": nearest.metrics["test/sse"],
        "test SSE, deconvolution": transpose.metrics["test/sse"],
        "largest difference between deconvolution and convolution": (
            (layer(maps) - as_convolution(layer, maps)).abs().max().item()
        ),
        "checkerboard before training, repeating values": checkerboard(fresh["nearest"](x).decoded),
        "checkerboard before training, deconvolution": checkerboard(fresh["transpose"](x).decoded),
        "checkerboard of the error after training, repeating values": checkerboard(nearest.reconstruct(x) - x),
        "checkerboard of the error after training, deconvolution": checkerboard(transpose.reconstruct(x) - x),
    }
    holds = (
        figures["largest difference between deconvolution and convolution"] < 1e-5
        and nearest.metrics["test/sse"] < 1.2 * transpose.metrics["test/sse"]
        and figures["checkerboard before training, deconvolution"]
        > 5 * figures["checkerboard before training, repeating values"]
    )
    picture = rows(
        nearest.directory / "figures" / "decoders.png",
        {
            "clean": shown,
            "repeat": nearest.reconstruct(shown),
            "deconv.": transpose.reconstruct(shown),
            "repeat, untrained": stretched(fresh["nearest"](shown).decoded),
            "deconv., untrained": stretched(fresh["transpose"](shown).decoded),
        },
    )
    note = (
        "Checkerboard: the power at the period of two pixels over the mean power of all other frequencies, of what the "
        "decoder paints before it has learnt anything, and of the error after training, by when deconvolution has "
        "unlearnt its own."
    )
    return Outcome(figures, holds, picture, note)
