"""van den Oord et al. (2017): an image as a few words from a learnt book."""

import torch
from evidence import pixels
from experiments import Outcome
from likeness import mnist
from sheets import beside
from torch import Tensor

from aetrain.api import Trained
from aetrain.model.bottlenecks import Quantized
from aetrain.model.pca import PCA
from aetrain.model.records import QuantizedCode
from aetrain.views.render import grid

CLAIM = (
    "16 codewords of a book of 128, 112 bits an image, reconstruct it better than PCA coefficients rounded to as many "
    "bits; every code is made of codewords alone, and most of the book is in use."
)
RUNS = {"vqvae": ["experiment=vqvae"]}
MOST_BITS = 6  # of one coefficient


def lloyd(values: Tensor, bits: int, steps: int = 25) -> Tensor:
    """The levels [K, 2^bits], rising, that lie closest to the values [N, K] of each column (Lloyd 1982)."""
    spots = (torch.arange(2**bits) + 0.5) / 2**bits
    levels = torch.quantile(values, spots, dim=0).t().contiguous()  # [K, L]
    for _ in range(steps):
        index = nearest(values, levels)  # [K, N]
        total = torch.zeros_like(levels).scatter_add_(1, index, values.t())
        count = torch.zeros_like(levels).scatter_add_(1, index, torch.ones_like(values.t()))
        levels = torch.where(count > 0, total / count.clamp_min(1), levels).sort(1).values
    return levels


def nearest(values: Tensor, levels: Tensor) -> Tensor:
    """Which level [K, N] is nearest to each of the values [N, K]."""
    middles = (levels[:, 1:] + levels[:, :-1]) / 2
    return torch.searchsorted(middles.contiguous(), values.t().contiguous())


def rounded_pca(train: Tensor, test: Tensor, bits: int) -> Tensor:
    """Test images [N, 1, 28, 28] through PCA coefficients that share that many bits, where each does most good.

    Scalar quantisers by Lloyd's algorithm; bits are given one at a time to the coefficient whose error falls most.
    """
    pca = PCA.fit([train], 64)
    values = pca.encode(train)[:5000]
    books = {b: lloyd(values, b) for b in range(1, MOST_BITS + 1)}
    error = torch.stack(
        [values.square().mean(0)]
        + [(values.t() - books[b].gather(1, nearest(values, books[b]))).square().mean(1) for b in books]
    )  # [bits, K]
    spent = torch.zeros(64, dtype=torch.long)
    for _ in range(bits):
        gain = error[spent, torch.arange(64)] - error[(spent + 1).clamp_max(MOST_BITS), torch.arange(64)]
        spent[gain.argmax()] += 1
    coefficients = pca.encode(test).t()  # [K, N]
    kept = torch.zeros_like(coefficients)
    for k, b in enumerate(spent.tolist()):
        if b:
            book = books[b][k : k + 1]
            kept[k] = book[0][nearest(coefficients[k][:, None], book)[0]]
    return (kept.t() @ pca.components + pca.mean).view_as(test)


@torch.no_grad()
def check(runs: dict[str, Trained]) -> Outcome:
    """Error below that of rounded PCA; z equal to codewords to the last bit; half of the book in use."""
    run = runs["vqvae"]
    neck = run.model.bottleneck
    assert isinstance(neck, Quantized)
    test = pixels(mnist().test)
    code = run.model.encode(test)
    assert isinstance(code, QuantizedCode)
    exact = torch.equal(code.z.unflatten(1, (neck.groups, -1)), neck.codebook.weight[code.index])
    words = neck.codebook.num_embeddings
    bits = neck.groups * (words - 1).bit_length()
    through_pca = rounded_pca(pixels(mnist().train), test, bits)
    pca_sse = float((through_pca - test).square().sum((1, 2, 3)).mean())
    sse, used = run.metrics["test/sse"], run.metrics["test/used_codewords"]
    figures = {
        "bits of a code": bits,
        "test SSE": sse,
        "test SSE of PCA rounded to as many bits": pca_sse,
        "codewords in use, of 128": used,
        "perplexity of their use": run.metrics["test/perplexity"],
    }
    rows = {"test images": test[:50], "112 bits, VQ-VAE": run.reconstruct(test[:50]), "112 bits, PCA": through_pca[:50]}
    sheets = {title: grid(images, columns=10) for title, images in rows.items()}
    holds = exact and sse < pca_sse and used >= words / 2
    note = "Bits are given to PCA's coefficients where they do most good, each with the best levels for it (Lloyd)."
    picture = beside(run.directory / "figures" / "words.png", sheets.values(), sheets)
    return Outcome(figures, holds, picture, note)
