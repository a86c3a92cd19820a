"""The fastest recipe for a negative ELBO of 104 nats, compared with the plain one."""

from experiments import Outcome
from measurements import curve

from aetrain.api import Trained

CLAIM = "784-400-20 reaches a negative ELBO of 104 nats on the test set, which the plain recipe does not reach."
LESSON = "A better recipe reaches a lower negative ELBO in half the time."
RESULT = "-ELBO {test negative ELBO, nats} nats, plain {plain: test negative ELBO at its end, nats}"
RUNS = {"fast": ["experiment=vae_fast"], "plain": ["experiment=vae", "epochs=15"]}
TARGET = 104.0


def epochs_to_target(run: Trained, metric: str, target: float) -> tuple[int, float]:
    """Return the first epoch with a metric of at most `target`, and the seconds of training until then; -1 if none."""
    passed = 0.0
    for epoch, (value, seconds) in enumerate(zip(curve(run, metric), curve(run, "seconds"), strict=True)):
        passed += seconds
        if value <= target:
            return epoch, passed
    return -1, passed


def check(runs: dict[str, Trained]) -> Outcome:
    """Check that the recipe ends at 104 nats or below, and that the plain one is not faster."""
    fast, plain = runs["fast"], runs["plain"]
    epochs, seconds = epochs_to_target(fast, "test/neg_elbo", TARGET)
    plain_epochs, plain_seconds = epochs_to_target(plain, "test/neg_elbo", TARGET)
    metrics = {
        "test negative ELBO, nats": fast.metrics["test/neg_elbo"],
        "epochs to 104 nats": epochs,
        "plain: test negative ELBO at its end, nats": plain.metrics["test/neg_elbo"],
        "plain: epochs to 104 nats (-1: never)": plain_epochs,
        "time of training, as a share of the plain one's (to 104 nats, or to its end)": seconds / plain_seconds,
    }
    holds = fast.metrics["test/neg_elbo"] <= TARGET and (plain_epochs < 0 or seconds < plain_seconds)
    return Outcome(metrics, holds, fast.directory / "figures" / "samples.png")
