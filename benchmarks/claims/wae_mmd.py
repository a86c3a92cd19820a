"""Tolstikhin et al. (2018): a distance between samples shapes the codes into the prior, without a second network."""

from experiments import Outcome
from prior_matching import check_matched

from aetrain.api import Trained

CLAIM = (
    "With the MMD penalty, the codes of all test images together are close to the prior N(0, I), and draws from the "
    "prior are decoded into digits of every class. Without the penalty the codes lie elsewhere, and draws are decoded "
    "into few digits. The error is about a tenth larger."
)
LESSON = "An MMD penalty shapes the codes into the prior."
RESULT = "MMD² to the prior {squared MMD to the prior, with the penalty}, without {squared MMD to the prior, without}"
RUNS = {
    "wae_mmd": ["experiment=wae_mmd"],
    "without": ["experiment=wae_mmd", "model.penalties.mmd.weight=0"],
}


def check(runs: dict[str, Trained]) -> Outcome:
    """Check `check_matched`, and that the error is at most 15 % above the control's."""
    matched = check_matched(runs, ("with the penalty", "without"))
    small_cost = runs["wae_mmd"].metrics["test/sse"] < 1.15 * runs["without"].metrics["test/sse"]
    note = "The agreement is that of the 10 nearest training images; for real test digits it is 0.95."
    return Outcome(matched.metrics, matched.holds and small_cost, matched.picture, note)
