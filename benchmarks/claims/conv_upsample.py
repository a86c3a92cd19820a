"""Odena et al. (2016), doi:10.23915/distill.00003: upsampling and convolution, compared with deconvolution."""

import torch
from experiments import Outcome
from measurements import one_of_each_class, pixels, splits_of
from pictures import rows
from torch import Tensor, nn
from torch.nn import functional as F

from aetrain.api import Trained, compose_config
from aetrain.model.autoencoder import Autoencoder
from aetrain.model.conv import ConvDecoder
from aetrain.runs.build import build
from aetrain.runs.entry import check as check_config

CLAIM = (
    "Deconvolution is a convolution of the map with zeros between its values. Its kernels overlap unevenly, which "
    "shows as a checkerboard. Repeating each value and convolving reconstructs as well and has no checkerboard by "
    "construction."
)
LESSON = "Transposed convolution draws a checkerboard; upsampling and convolution does not."
RESULT = (
    "checkerboard before training: deconvolution {checkerboard before training, deconvolution}, upsampling "
    "{checkerboard before training, repeating values}"
)
RUNS = {
    "nearest": ["experiment=conv_upsample"],
    "transpose": ["experiment=conv_upsample", "model.up=transpose", "views=none"],
}


def as_convolution(layer: nn.ConvTranspose2d, x: Tensor) -> Tensor:
    """Return the layer's output for maps x [B, C, H, W]: put zeros between the values, then convolve.

    The kernel is rotated by 180 degrees.
    """
    stride, kernel, padding = layer.stride[0], layer.kernel_size[0], int(layer.padding[0])
    extra_height, extra_width = layer.output_padding[:2]
    batch, channels, height, width = x.shape
    spread = x.new_zeros(batch, channels, (height - 1) * stride + 1, (width - 1) * stride + 1)
    spread[:, :, ::stride, ::stride] = x
    edge = kernel - 1 - padding
    spread = F.pad(spread, (edge, edge + extra_width, edge, edge + extra_height))
    return F.conv2d(spread, layer.weight.flip(2, 3).transpose(0, 1), layer.bias)


def checkerboard(pictures: Tensor) -> float:
    """Return the mean power of pictures [N, C, H, W] at a period of two pixels over that of all other frequencies."""
    power = torch.fft.fft2(pictures - pictures.mean((2, 3), keepdim=True)).abs().square().mean((0, 1))  # [H, W]
    height, width = power.shape
    alternating = torch.zeros_like(power, dtype=torch.bool)
    alternating[height // 2, :] = alternating[:, width // 2] = True
    return (power[alternating].mean() / power[~alternating].mean()).item()


def untrained(trained: Trained) -> Autoencoder:
    """Return the run's model with the initial weights of its seed."""
    config, _, overrides = compose_config([f"run={trained.directory}", "device=cpu", "mode=eval"])
    return build(check_config(config, overrides)).model.eval()


def stretch_contrast(decoded: Tensor) -> Tensor:
    """Return pictures [N, C, H, W] scaled so that each has values from 0 to 1."""
    low, high = decoded.amin((1, 2, 3), True), decoded.amax((1, 2, 3), True)
    return (decoded - low) / (high - low)


@torch.no_grad()
def check(runs: dict[str, Trained]) -> Outcome:
    """Check that deconvolution equals a convolution with a checkerboard, and that upsampling costs at most 20 % SSE."""
    nearest, transpose = runs["nearest"], runs["transpose"]
    initial = {name: untrained(run) for name, run in runs.items()}
    data = splits_of(nearest)
    x, examples = pixels(data.test, 1000), one_of_each_class(data.test)
    decoder = transpose.model.decoder
    assert isinstance(decoder, ConvDecoder)
    layer = decoder.layers[-1]
    assert isinstance(layer, nn.ConvTranspose2d)
    maps = torch.rand(4, layer.in_channels, 14, 14)
    metrics = {
        "test SSE, repeating values": nearest.metrics["test/sse"],
        "test SSE, deconvolution": transpose.metrics["test/sse"],
        "largest difference between deconvolution and convolution": (
            (layer(maps) - as_convolution(layer, maps)).abs().max().item()
        ),
        "checkerboard before training, repeating values": checkerboard(initial["nearest"](x).decoded),
        "checkerboard before training, deconvolution": checkerboard(initial["transpose"](x).decoded),
        "checkerboard of the error after training, repeating values": checkerboard(nearest.reconstruct(x) - x),
        "checkerboard of the error after training, deconvolution": checkerboard(transpose.reconstruct(x) - x),
    }
    holds = (
        metrics["largest difference between deconvolution and convolution"] < 1e-5
        and nearest.metrics["test/sse"] < 1.2 * transpose.metrics["test/sse"]
        and metrics["checkerboard before training, deconvolution"]
        > 5 * metrics["checkerboard before training, repeating values"]
    )
    picture = rows(
        nearest.directory / "figures" / "decoders.png",
        {
            "clean": examples,
            "repeat": nearest.reconstruct(examples),
            "deconv.": transpose.reconstruct(examples),
            "repeat, untrained": stretch_contrast(initial["nearest"](examples).decoded),
            "deconv., untrained": stretch_contrast(initial["transpose"](examples).decoded),
        },
    )
    note = (
        "Checkerboard: the power at the period of two pixels over the mean power of all other frequencies, of the "
        "decoder's output before training, and of the error after training. Deconvolution has unlearnt its "
        "checkerboard by then."
    )
    return Outcome(metrics, holds, picture, note)
