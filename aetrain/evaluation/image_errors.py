"""Errors of reconstructed images in [0, 1]: cross-entropy, peak signal-to-noise ratio, structural similarity."""

import torch
from torch import Tensor
from torch.nn import functional as F

PIXEL_EPS = 1e-6  # distance from 0 and 1 that keeps the cross-entropy of a black or white reconstruction finite
MIN_MSE = (0.5 / 255) ** 2  # half a grey level squared, which bounds the PSNR of an exact reconstruction
SSIM_WINDOW, SSIM_SIGMA = 11, 1.5  # pixels
SSIM_MAX_PIXELS = 2**20  # of the images that are compared at a time, which bounds the memory of large ones
SSIM_LUMINANCE, SSIM_CONTRAST = 0.01**2, 0.03**2  # C_1 and C_2 of Wang et al. (2004) for pixels in [0, 1]


def bce(expected: Tensor, x: Tensor) -> Tensor:
    """Return the cross-entropy of pixels in [0, 1] summed over each image, [B], in nats."""
    p = expected.clamp(PIXEL_EPS, 1 - PIXEL_EPS)
    # -x log p - (1 - x) log(1 - p). F.binary_cross_entropy does not vectorise its logarithms and takes 6 times as long.
    return -torch.lerp((1 - p).log(), p.log(), x).flatten(1).sum(1)


def entropy(x: Tensor) -> Tensor:
    """Return the entropy of pixels as Bernoulli rates, summed over each image, [B], in nats: the lower bound of bce."""
    return -(torch.xlogy(x, x) + torch.xlogy(1 - x, 1 - x)).flatten(1).sum(1)


def psnr(expected: Tensor, x: Tensor) -> Tensor:
    """Return 10 log10(1 / MSE) of each image, [B], in dB; the MSE is at least half a grey level squared."""
    mse = (expected - x).square().flatten(1).mean(1)
    return -10 * mse.clamp_min(MIN_MSE).log10()


def ssim(reconstruction: Tensor, x: Tensor) -> Tensor:
    """Return the structural similarity of each image, [B].

    Wang et al. (2004), "Image quality assessment", eq. 13, with the constants and the window of section III.C (a
    Gaussian of standard deviation 1.5 on 11 x 11 pixels), for pixels in [0, 1]. Images are mirrored at their edges. On
    images below 11 pixels the window is the largest that fits, and below 4 pixels it is uniform. The values are those
    of torchmetrics, whose import takes longer than all other imports together.
    """
    size = max(SSIM_MAX_PIXELS // x[0].numel(), 1)
    parts = zip(reconstruction.split(size), x.split(size), strict=True)
    return torch.cat([_ssim_of_batch(*part) for part in parts])


def _ssim_of_batch(reconstruction: Tensor, x: Tensor) -> Tensor:
    line = _ssim_window(min(x.shape[2:]), x.device)
    window = len(line)
    weights = torch.outer(line, line).to(x.dtype).expand(5, 1, -1, -1)
    a, b = reconstruction.flatten(0, 1), x.flatten(0, 1)  # [B * C, H, W]
    padded = F.pad(torch.stack([a, b, a * a, b * b, a * b], 1), 4 * [window // 2], "reflect")
    mean_a, mean_b, aa, bb, ab = F.conv2d(padded, weights, groups=5).unbind(1)  # each [B * C, h, w]
    luminance = (2 * mean_a * mean_b + SSIM_LUMINANCE) / (mean_a**2 + mean_b**2 + SSIM_LUMINANCE)
    variances = (aa - mean_a**2).clamp_min(0) + (bb - mean_b**2).clamp_min(0)
    structure = (2 * (ab - mean_a * mean_b) + SSIM_CONTRAST) / (variances + SSIM_CONTRAST)
    return (luminance * structure).unflatten(0, x.shape[:2]).flatten(1).mean(1)


def _ssim_window(side: int, device: torch.device) -> Tensor:
    """Return the weights [K] of one axis of the window, for images whose shorter side has `side` pixels."""
    window = min(SSIM_WINDOW, side - 1 + side % 2)
    sigma = SSIM_SIGMA if window == SSIM_WINDOW else max(window - 1, 1) / 7
    offsets = torch.arange(window, device=device) - window // 2
    line = torch.exp(-0.5 * (offsets / sigma).square()) if window > 3 else torch.ones_like(offsets)
    return line / line.sum()
