"""The fastest recipe for the published SSE of 3.00, compared with plain Adam for as many epochs."""

from experiments import Outcome
from measurements import curve
from trainers import RELU

from aetrain.api import Trained

CLAIM = "784-1000-500-250-30 reaches the published SSE of 3.00 in a few epochs; plain Adam is far from it at that time."
LESSON = "The recipe of `hinton`, on squared error and in bfloat16, reaches the published error in 12 epochs."
RESULT = "SSE {test SSE}, plain Adam {plain: test SSE}, published 3.00"
RUNS = {
    "fast": ["experiment=hinton_fast"],
    "plain": ["model=deep", "model.hidden=[1000,500,250]", "model.code_dim=30", *RELU, "epochs=12"],
}
TARGET = 3.00


def check(runs: dict[str, Trained]) -> Outcome:
    """Check that the final error is at most 3.00, and that of the plain recipe above it."""
    fast, plain = runs["fast"], runs["plain"]
    seconds, plain_seconds = (sum(curve(run, "seconds")) for run in (fast, plain))
    metrics = {
        "test SSE": fast.metrics["test/sse"],
        "epochs": fast.metrics["epochs"],
        "published": TARGET,
        "plain: test SSE": plain.metrics["test/sse"],
        "time of training, as a share of the plain one's": seconds / plain_seconds,
    }
    holds = fast.metrics["test/sse"] <= TARGET < plain.metrics["test/sse"]
    return Outcome(metrics, holds, fast.directory / "figures" / "reconstructions.png")
