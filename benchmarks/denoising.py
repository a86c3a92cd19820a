"""The check that the denoising experiments share."""

from evidence import corrupted, noise_of, smoothness, sse, unseen
from experiments import Outcome
from sheets import beside, unit_sheet

from aetrain.api import Trained


def check_denoising(runs: dict[str, Trained]) -> Outcome:
    """Noise off both the denoising and the plain autoencoder's input: which comes nearer to the clean image?"""
    denoising, plain = runs["denoising"], runs["plain"]
    x, noise = unseen(denoising), noise_of(denoising)
    x_in = corrupted(noise, x)
    cleaned, by_plain = (sse(run.reconstruct(x_in), x) for run in (denoising, plain))
    smooth, noisy = (smoothness(run.model.first_layer_weights().detach(), apart=2) for run in (denoising, plain))
    figures = {
        "SSE of the noisy image itself": sse(x_in, x),
        "noisy→clean SSE, plain": by_plain,
        "noisy→clean SSE, denoising": cleaned,
        "clean→clean SSE, plain": plain.metrics["test/sse"],
        "clean→clean SSE, denoising": denoising.metrics["test/sse"],
        "correlation of weights two pixels apart, plain": noisy,
        "correlation of weights two pixels apart, denoising": smooth,
    }
    picture = beside(
        denoising.directory / "beside.png",
        [unit_sheet(plain), unit_sheet(denoising)],
        ["units, trained without noise", "units, trained with noise"],
    )
    holds = cleaned < by_plain and cleaned < sse(x_in, x) and smooth > noisy
    return Outcome(figures, holds, picture)
