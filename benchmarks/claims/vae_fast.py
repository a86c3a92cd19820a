"""A negative ELBO of 104 nats soonest: how long the recipe takes, beside the plain one at its own pace."""

from evidence import curve
from experiments import Outcome

from aetrain.api import Trained

CLAIM = "784-400-20 gets to a negative ELBO of 104 nats on the test set, which the plain recipe is still short of."
RUNS = {"fast": ["experiment=vae_fast"], "plain": ["experiment=vae", "epochs=15"]}
TARGET = 104.0


def reached(run: Trained, figure: str, target: float) -> tuple[int, float]:
    """The first epoch at which a figure is at most `target`, and the seconds of training up to there; -1 if at none."""
    passed = 0.0
    for epoch, (value, seconds) in enumerate(zip(curve(run, figure), curve(run, "seconds"), strict=True)):
        passed += seconds
        if value <= target:
            return epoch, passed
    return -1, passed


def check(runs: dict[str, Trained]) -> Outcome:
    """The recipe ends at 104 or below, and the plain one is not there sooner."""
    fast, plain = runs["fast"], runs["plain"]
    epochs, seconds = reached(fast, "test/neg_elbo", TARGET)
    plain_epochs, plain_seconds = reached(plain, "test/neg_elbo", TARGET)
    figures = {
        "test negative ELBO, nats": fast.metrics["test/neg_elbo"],
        "epochs to 104 nats": epochs,
        "plain: test negative ELBO at its end, nats": plain.metrics["test/neg_elbo"],
        "plain: epochs to 104 nats (-1: never)": plain_epochs,
        "time of training, as a share of the plain one's (to 104 nats, or to its end)": seconds / plain_seconds,
    }
    holds = fast.metrics["test/neg_elbo"] <= TARGET and (plain_epochs < 0 or seconds < plain_seconds)
    return Outcome(figures, holds, fast.directory / "figures" / "samples.png")
