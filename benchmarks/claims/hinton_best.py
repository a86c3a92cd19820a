"""How far down 784-1000-500-250-30 goes, on images that it was not trained on."""

from experiments import Outcome

from aetrain.library import Trained

CLAIM = "784-1000-500-250-30 gets to a test SSE of 2.45, below what the optimisers' papers report of this network."
RUNS = {"best": ["experiment=hinton_best"]}
TARGET = 2.45


def check(runs: dict[str, Trained]) -> Outcome:
    """At most 2.45."""
    metrics = runs["best"].metrics
    figures = {"test SSE": metrics["test/sse"], "epochs": metrics["epochs"], "published in 2006": 3.00}
    return Outcome(figures, metrics["test/sse"] <= TARGET, runs["best"].directory / "figures" / "reconstructions.png")
