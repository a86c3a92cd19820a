"""The check that the denoising experiments share."""

from experiments import Outcome
from measurements import corrupted, noise_of, smoothness, sse, unseen
from pictures import beside, unit_sheet

from aetrain.api import Trained


def check_denoising(runs: dict[str, Trained]) -> Outcome:
    """Check that the denoising autoencoder removes more noise than the plain one, and has smoother units."""
    denoising, plain = runs["denoising"], runs["plain"]
    x, noise = unseen(denoising), noise_of(denoising)
    x_in = corrupted(noise, x)
    denoising_sse, plain_sse = sse(denoising.reconstruct(x_in), x), sse(plain.reconstruct(x_in), x)
    denoising_weights, plain_weights = (run.model.first_layer_weights().detach() for run in (denoising, plain))
    denoising_smoothness, plain_smoothness = smoothness(denoising_weights, apart=2), smoothness(plain_weights, apart=2)
    metrics = {
        "SSE of the noisy image itself": sse(x_in, x),
        "noisy→clean SSE, plain": plain_sse,
        "noisy→clean SSE, denoising": denoising_sse,
        "clean→clean SSE, plain": plain.metrics["test/sse"],
        "clean→clean SSE, denoising": denoising.metrics["test/sse"],
        "correlation of weights two pixels apart, plain": plain_smoothness,
        "correlation of weights two pixels apart, denoising": denoising_smoothness,
    }
    picture = beside(
        denoising.directory / "beside.png",
        [unit_sheet(plain), unit_sheet(denoising)],
        ["units, trained without noise", "units, trained with noise"],
    )
    holds = denoising_sse < plain_sse and denoising_sse < sse(x_in, x) and denoising_smoothness > plain_smoothness
    return Outcome(metrics, holds, picture)
