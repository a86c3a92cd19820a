"""The published SSE of 3.00 soonest: how long the recipe takes, beside the plain one in as many epochs."""

from evidence import curve
from experiments import Outcome

from aetrain.api import Trained

CLAIM = "784-1000-500-250-30 gets to the published SSE of 3.00 in a few epochs; plain Adam is far from it by then."
RUNS = {
    "fast": ["experiment=hinton_fast"],
    "plain": ["model=deep", "model.hidden=[1000,500,250]", "model.code_dim=30", "epochs=12"],
}
TARGET = 3.00


def check(runs: dict[str, Trained]) -> Outcome:
    """At most 3.00 at the end, the plain recipe above it."""
    fast, plain = runs["fast"], runs["plain"]
    seconds, plain_seconds = (sum(curve(run, "seconds")) for run in (fast, plain))
    figures = {
        "test SSE": fast.metrics["test/sse"],
        "epochs": fast.metrics["epochs"],
        "published": TARGET,
        "plain: test SSE": plain.metrics["test/sse"],
        "time of training, as a share of the plain one's": seconds / plain_seconds,
    }
    holds = fast.metrics["test/sse"] <= TARGET < plain.metrics["test/sse"]
    return Outcome(figures, holds, fast.directory / "figures" / "reconstructions.png")
