"""van den Oord et al. (2017): a code of a few discrete codewords of a learnt codebook."""

import torch
from experiments import Outcome
from generated_images import mnist
from measurements import pixels
from pictures import beside
from torch import Tensor

from aetrain.api import Trained
from aetrain.model.bottlenecks import Quantized
from aetrain.model.codes import QuantizedCode
from aetrain.model.pca import PCA
from aetrain.views.render import grid

CLAIM = (
    "16 codewords of a codebook of 128, 112 bits per image, reconstruct the image better than PCA coefficients "
    "rounded to as many bits. Every code consists of codewords alone, and most of the codebook is in use."
)
LESSON = "Discrete codes store an image in 112 bits."
RESULT = "SSE {test SSE}, PCA with as many bits {test SSE of PCA rounded to as many bits}"
RUNS = {"vqvae": ["experiment=vqvae"]}
MAX_BITS = 6  # of one coefficient


def lloyd(values: Tensor, bits: int, steps: int = 25) -> Tensor:
    """Return the ascending levels [K, 2^bits] that are closest to each column of values [N, K] (Lloyd 1982)."""
    quantiles = (torch.arange(2**bits) + 0.5) / 2**bits
    levels = torch.quantile(values, quantiles, dim=0).t().contiguous()  # [K, L]
    for _ in range(steps):
        index = nearest_level(values, levels)  # [K, N]
        total = torch.zeros_like(levels).scatter_add_(1, index, values.t())
        count = torch.zeros_like(levels).scatter_add_(1, index, torch.ones_like(values.t()))
        levels = torch.where(count > 0, total / count.clamp_min(1), levels).sort(1).values
    return levels


def nearest_level(values: Tensor, levels: Tensor) -> Tensor:
    """Return the index [K, N] of the nearest of levels [K, L] for each of the values [N, K]."""
    boundaries = (levels[:, 1:] + levels[:, :-1]) / 2
    return torch.searchsorted(boundaries.contiguous(), values.t().contiguous())


def rounded_pca(train: Tensor, test: Tensor, bits: int) -> Tensor:
    """Return test images [N, 1, 28, 28], reconstructed from PCA coefficients with `bits` bits in all.

    Lloyd's algorithm gives the levels. Bits are assigned one at a time to the coefficient whose error falls most.
    """
    pca = PCA.fit([train], 64)
    values = pca.encode(train)[:5000]
    levels = {b: lloyd(values, b) for b in range(1, MAX_BITS + 1)}
    errors = [values.square().mean(0)]
    for level in levels.values():
        rounded = level.gather(1, nearest_level(values, level))  # [K, N]
        errors.append((values.t() - rounded).square().mean(1))
    error = torch.stack(errors)  # [bits, K]
    bits_of = torch.zeros(64, dtype=torch.long)
    for _ in range(bits):
        gain = error[bits_of, torch.arange(64)] - error[(bits_of + 1).clamp_max(MAX_BITS), torch.arange(64)]
        bits_of[gain.argmax()] += 1
    coefficients = pca.encode(test).t()  # [K, N]
    rounded_test = torch.zeros_like(coefficients)
    for k, b in enumerate(bits_of.tolist()):
        if b:
            own_levels = levels[b][k : k + 1]
            rounded_test[k] = own_levels[0][nearest_level(coefficients[k][:, None], own_levels)[0]]
    return (rounded_test.t() @ pca.components + pca.mean).view_as(test)


@torch.no_grad()
def check(runs: dict[str, Trained]) -> Outcome:
    """Check that the error is below that of rounded PCA, that z consists of codewords, and that half are in use."""
    run = runs["vqvae"]
    bottleneck = run.model.bottleneck
    assert isinstance(bottleneck, Quantized)
    test = pixels(mnist().test)
    code = run.model.encode(test)
    assert isinstance(code, QuantizedCode)
    exact = torch.equal(code.z.unflatten(1, (bottleneck.groups, -1)), bottleneck.codebook.weight[code.index])
    num_codewords = bottleneck.codebook.num_embeddings
    bits = bottleneck.groups * (num_codewords - 1).bit_length()
    through_pca = rounded_pca(pixels(mnist().train), test, bits)
    pca_sse = float((through_pca - test).square().sum((1, 2, 3)).mean())
    sse, used = run.metrics["test/sse"], run.metrics["test/used_codewords"]
    metrics = {
        "bits of a code": bits,
        "test SSE": sse,
        "test SSE of PCA rounded to as many bits": pca_sse,
        "codewords in use, of 128": used,
        "perplexity of their use": run.metrics["test/perplexity"],
    }
    images = {
        "test images": test[:50],
        "112 bits, VQ-VAE": run.reconstruct(test[:50]),
        "112 bits, PCA": through_pca[:50],
    }
    sheets = {title: grid(row, columns=10) for title, row in images.items()}
    holds = exact and sse < pca_sse and used >= num_codewords / 2
    note = "PCA's bits are assigned to the coefficients with the largest benefit, each with its best levels (Lloyd)."
    picture = beside(run.directory / "figures" / "words.png", sheets.values(), sheets)
    return Outcome(metrics, holds, picture, note)
