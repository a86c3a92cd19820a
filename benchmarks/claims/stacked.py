"""Bengio et al. (2007): greedy layer-wise training gives a deep network a start from which it can be trained."""

from evidence import curve
from experiments import Outcome
from sheets import curves_picture

from aetrain.api import Trained

CLAIM = (
    "784-1000-1000-500-10 trained layer by layer, each stage an autoencoder on the last one's code, then fine-tuned, "
    "is better than the same network trained from a random start for as many epochs."
)
RUNS = {
    "layer by layer first": ["experiment=stacked"],
    # As long as the stages and the fine-tuning of the first, every epoch through the whole network.
    "random start": ["experiment=stacked", "pretrain=none", "epochs=9"],
}


def check(runs: dict[str, Trained]) -> Outcome:
    """Lower before fine-tuning and after each of its epochs, and than the random start given the stages' epochs too."""
    curves = {name: curve(run, "test/sse") for name, run in runs.items()}
    first, random = curves.values()
    epochs = len(first) - 1
    figures = {
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
    return Outcome(figures, holds, picture)
