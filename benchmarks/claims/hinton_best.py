"""How far down 784-1000-500-250-30 goes, on images that it was not trained on."""

from experiments import Outcome

from aetrain.library import Trained

CLAIM = "784-1000-500-250-30 gets to a test SSE of 2.52 or less, far below the published 3.00; the aim is 2.45."
RUNS = {"best": ["experiment=hinton_best"]}
KNOWN, AIM = 2.52, 2.45


def check(runs: dict[str, Trained]) -> Outcome:
    """At most the best figure known of this network; how far it is from the aim."""
    metrics = runs["best"].metrics
    figures = {"test SSE": metrics["test/sse"], "epochs": metrics["epochs"], "published in 2006": 3.00, "aim": AIM}
    return Outcome(figures, metrics["test/sse"] <= KNOWN, runs["best"].directory / "figures" / "reconstructions.png")
