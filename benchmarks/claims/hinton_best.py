"""The lowest test error of 784-1000-500-250-30."""

from experiments import Outcome

from aetrain.api import Trained

CLAIM = "784-1000-500-250-30 reaches a test SSE of 2.45 or less. Published in 2006: 3.00; lowest known so far: 2.52."
LESSON = "Augmentation and 50 epochs lower the error further."
RESULT = "SSE {test SSE}, published 3.00"
RUNS = {"best": ["experiment=hinton_best"]}
TARGET = 2.45


def check(runs: dict[str, Trained]) -> Outcome:
    """Check that the error is at most the target, which is below all known results without augmentation."""
    run_metrics = runs["best"].metrics
    metrics = {"test SSE": run_metrics["test/sse"], "epochs": run_metrics["epochs"], "published in 2006": 3.00}
    return Outcome(
        metrics, run_metrics["test/sse"] <= TARGET, runs["best"].directory / "figures" / "reconstructions.png"
    )
