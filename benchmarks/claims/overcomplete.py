"""An autoencoder with more units than pixels has room to copy; a price on activity keeps it from it."""

import torch
from experiments import Outcome
from measuring import corrupted, rows, splits_of, sse, unseen

from aetrain.data.noise import Gaussian
from aetrain.library import Trained

CLAIM = (
    "784-1000 without a penalty copies: of a noisy image it paints the noise (noisy→clean no better than the input). "
    "With L1 on the code, the code is sparse and useful: noise is taken off that it was never trained on, and labels "
    "are as easily read from the few active units."
)
RUNS = {
    "sparse": ["experiment=overcomplete"],
    "plain": ["experiment=overcomplete", "sparsity=none"],
}


def check(runs: dict[str, Trained]) -> Outcome:
    """Noisy to clean against the noisy image itself; L0; nearest-centroid and kNN classes from the code."""
    sparse, plain = runs["sparse"], runs["plain"]
    x = unseen(sparse)
    x_in = corrupted(Gaussian(std=0.3, clip=False), x)
    noisy = {name: sse(run.reconstruct(x_in), x) for name, run in runs.items()}
    knn = {name: neighbours(run) for name, run in runs.items()}
    itself = sse(x_in, x)
    figures = {
        "SSE of the noisy image itself": itself,
        "noisy→clean SSE, without penalty": noisy["plain"],
        "noisy→clean SSE, with L1": noisy["sparse"],
        "clean→clean SSE, without penalty": plain.metrics["test/sse"],
        "clean→clean SSE, with L1": sparse.metrics["test/sse"],
        "active units of 1000, without penalty": plain.metrics["test/l0"],
        "active units of 1000, with L1": sparse.metrics["test/l0"],
        "dead units, with L1": sparse.metrics["test/dead_units"],
        "1-NN accuracy of the code, without penalty, %": knn["plain"],
        "1-NN accuracy of the code, with L1, %": knn["sparse"],
    }
    picture = rows(
        sparse.directory / "rows.png",
        {"clean": x, "noisy": x_in, "plain": plain.reconstruct(x_in), "with L1": sparse.reconstruct(x_in)},
    )
    holds = (
        noisy["plain"] > 0.9 * itself
        and noisy["sparse"] < 0.7 * itself
        and sparse.metrics["test/l0"] < 100
        and knn["sparse"] > knn["plain"] - 1
    )
    return Outcome(figures, holds, picture)


def neighbours(run: Trained, count: int = 10_000) -> float:
    """Share of 2,000 test images, in %, whose nearest code among `count` training images has their label (cosine)."""
    splits = splits_of(run)
    assert splits.train.labels is not None
    assert splits.test.labels is not None
    seen, asked = (
        torch.nn.functional.normalize(run.encode(part.pixels[:n].float() / 255))
        for part, n in ((splits.train, count), (splits.test, 2000))
    )
    nearest = splits.train.labels[:count][(asked @ seen.t()).argmax(1)]
    return 100 * float((nearest == splits.test.labels[:2000]).float().mean())
