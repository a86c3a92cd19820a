"""How far down 784-1000-500-250-30 goes, on images that it was not trained on."""

from experiments import Outcome

from aetrain.api import Trained

CLAIM = "784-1000-500-250-30 gets to a test SSE of 2.45 or less; published in 2006: 3.00, the least known so far: 2.52."
RUNS = {"best": ["experiment=hinton_best"]}
AIM = 2.45


def check(runs: dict[str, Trained]) -> Outcome:
    """At most what was aimed at, below all that is known of this network without augmentation."""
    metrics = runs["best"].metrics
    figures = {"test SSE": metrics["test/sse"], "epochs": metrics["epochs"], "published in 2006": 3.00}
    return Outcome(figures, metrics["test/sse"] <= AIM, runs["best"].directory / "figures" / "reconstructions.png")
