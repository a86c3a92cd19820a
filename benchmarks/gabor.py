"""Fit Gabor functions to small images, such as the atoms of a dictionary."""

import numpy as np
from scipy.optimize import least_squares

STARTS = 2  # spatial frequencies to start from: the strongest ones of the image
PADDED = 64  # side of the Fourier transform in which these are found


def gabor_r2(image: np.ndarray) -> float:
    """Return R^2 of the best Gabor function for an image [h, w]: a grating under a Gaussian envelope inside the image.

    The mean is removed first. The standard deviation of the envelope is at least half a pixel, at most the image's side
    along the bars and a quarter of it across them. Phase and amplitude are solved for linearly.
    """
    target = (image - image.mean()).astype(np.float64)
    power = float((target**2).sum())
    if power == 0:
        return 0.0
    side = max(target.shape)
    axes = [np.arange(length) - (length - 1) / 2 for length in target.shape]
    y, x = np.meshgrid(*axes, indexing="ij")
    weights = target**2 / power
    center = (float((weights * x).sum()), float((weights * y).sum()))
    low = [-side / 2, -side / 2, 0.5, 0.5, -0.5, -0.5]
    high = [side / 2, side / 2, side, side / 4, 0.5, 0.5]

    def residual(parameters: np.ndarray) -> np.ndarray:
        return target.ravel() - _project(target, _gratings(parameters, x, y))

    errors = []
    for across, down in _strongest_frequencies(target):
        start = np.clip([*center, side / 6, side / 6, across, down], low, high)
        errors.append(2 * least_squares(residual, start, bounds=(low, high), max_nfev=200).cost)
    return 1 - min(errors) / power


def _gratings(parameters: np.ndarray, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Return the gratings of both phases under an envelope along and across them, [h * w, 2]."""
    x0, y0, along, across, fx, fy = parameters
    dx, dy = x - x0, y - y0
    theta = np.arctan2(fy, fx)
    u, v = dx * np.cos(theta) + dy * np.sin(theta), dy * np.cos(theta) - dx * np.sin(theta)
    envelope = np.exp(-0.5 * ((u / across) ** 2 + (v / along) ** 2))
    phase = 2 * np.pi * (fx * dx + fy * dy)
    return np.stack([(envelope * np.cos(phase)).ravel(), (envelope * np.sin(phase)).ravel()], axis=1)


def _project(target: np.ndarray, basis: np.ndarray) -> np.ndarray:
    """Return the combination of the columns of a basis that is nearest to the target, [h * w]."""
    gram = basis.T @ basis + 1e-9 * np.eye(basis.shape[1])
    return basis @ np.linalg.solve(gram, basis.T @ target.ravel())


def _strongest_frequencies(target: np.ndarray) -> list[tuple[float, float]]:
    """Return frequencies (across, down) in cycles per pixel: peaks of the spectrum, the strongest first."""
    spectrum = np.abs(np.fft.rfft2(target, (PADDED, PADDED)))
    down, across = np.fft.fftfreq(PADDED), np.fft.rfftfreq(PADDED)
    frequencies = []
    for _ in range(STARTS):
        row, column = np.unravel_index(spectrum.argmax(), spectrum.shape)
        frequencies.append((float(across[column]), float(down[row])))
        near = np.hypot(down[:, None] - down[row], across[None] - across[column]) < 1.5 / max(target.shape)
        spectrum[near] = 0
    return frequencies


def gabor_share(images: np.ndarray, bound: float) -> float:
    """Return the share of images [N, h, w] for which the R^2 of a Gabor function is above a bound."""
    return float(np.mean([gabor_r2(image) > bound for image in images]))
