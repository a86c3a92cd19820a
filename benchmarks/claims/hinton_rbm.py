"""Hinton & Salakhutdinov (2006): a stack of RBMs finds weights from which a deep sigmoid autoencoder can be trained."""

from evidence import curve
from experiments import Outcome
from sheets import curves_picture

from aetrain.api import Trained

CLAIM = (
    "Initialised by a stack of RBMs, 784-1000-500-250-30 with sigmoid units starts lower than from a random start and "
    "stays ahead over the first epochs."
)
RUNS = {
    "stack of RBMs": ["experiment=hinton_rbm"],
    "random start": ["experiment=hinton_rbm", "pretrain=none"],
}


def check(runs: dict[str, Trained]) -> Outcome:
    """Lower before training, and after every epoch."""
    curves = {name: curve(run, "test/sse") for name, run in runs.items()}
    rbm, random = curves.values()
    figures = {
        "test SSE before fine-tuning, stack of RBMs": rbm[0],
        "test SSE before fine-tuning, random start": random[0],
        "test SSE after 1 epoch, stack of RBMs": rbm[1],
        "test SSE after 1 epoch, random start": random[1],
        f"test SSE after {len(rbm) - 1} epochs, stack of RBMs": rbm[-1],
        f"test SSE after {len(rbm) - 1} epochs, random start": random[-1],
        "test SSE of PCA-30": runs["random start"].metrics["test/pca_sse"],
    }
    picture = curves_picture(
        runs["stack of RBMs"].directory / "figures" / "curves.png", curves, "squared error per test image", log=True
    )
    return Outcome(figures, all(a < b for a, b in zip(rbm, random, strict=True)), picture)
