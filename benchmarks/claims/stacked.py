"""Bengio et al. (2007): greedy layer-wise training gives initial weights that train a deep network."""

from experiments import Outcome
from measurements import curve
from pictures import curves_picture

from aetrain.api import Trained

CLAIM = (
    "784-1000-1000-500-10 trained layer by layer, each stage as an autoencoder on the previous code, and then "
    "fine-tuned, is better than the same network trained from random weights for as many epochs."
)
LESSON = "Layer-wise pretraining gives a better start than random weights."
RESULT = (
    "SSE after 6 epochs {test SSE after 6 epochs, layer by layer}, random start {test SSE after 6 epochs, random start}"
)
RUNS = {
    "layer by layer first": ["experiment=stacked"],
    # As many epochs as the stages and the fine-tuning of the first run together, each on the whole network.
    "random start": ["experiment=stacked", "pretrain=none", "epochs=9"],
}


def check(runs: dict[str, Trained]) -> Outcome:
    """Check that the error is lower before and after each epoch of fine-tuning, and below the random start's last."""
    curves = {name: curve(run, "test/sse") for name, run in runs.items()}
    first, random = curves.values()
    epochs = len(first) - 1
    metrics = {
        "test SSE before fine-tuning, layer by layer": first[0],
        "test SSE before training, random start": random[0],
        f"test SSE after {epochs} epochs, layer by layer": first[-1],
        f"test SSE after {epochs} epochs, random start": random[min(epochs, len(random) - 1)],
        f"test SSE after {len(random) - 1} epochs, random start": random[-1],
    }
    picture = curves_picture(
        runs["layer by layer first"].directory / "figures" / "curves.png",
        curves,
        "squared error per test image",
        log=True,
    )
    holds = all(a < b for a, b in zip(first, random, strict=False)) and first[-1] < random[-1]
    return Outcome(metrics, holds, picture)
