"""Hinton & Salakhutdinov (2006): a stack of RBMs gives initial weights that train a deep sigmoid autoencoder."""

from experiments import Outcome
from measurements import curve
from pictures import curves_picture

from aetrain.api import Trained

CLAIM = (
    "Initialised by a stack of RBMs, 784-1000-500-250-30 with sigmoid units starts at a lower error than from random "
    "weights and stays ahead over the first epochs."
)
LESSON = "A stack of RBMs gives a deep sigmoid network a better start."
RESULT = (
    "SSE after 5 epochs {test SSE after 5 epochs, stack of RBMs}, random start {test SSE after 5 epochs, random start}"
)
RUNS = {
    "stack of RBMs": ["experiment=hinton_rbm"],
    "random start": ["experiment=hinton_rbm", "pretrain=none"],
}


def check(runs: dict[str, Trained]) -> Outcome:
    """Check that the error is lower before fine-tuning and after every epoch."""
    curves = {name: curve(run, "test/sse") for name, run in runs.items()}
    rbm, random = curves.values()
    metrics = {
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
    return Outcome(metrics, all(a < b for a, b in zip(rbm, random, strict=True)), picture)
