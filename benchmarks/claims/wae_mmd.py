"""Tolstikhin et al. (2018): a distance of samples does what a critic does, without a second network."""

from experiments import Outcome
from matching import check_matched

from aetrain.api import Trained

CLAIM = (
    "With the MMD penalty the codes of all test images together are close to the prior N(0, I), and draws from it are "
    "painted as digits of every kind; without it the codes are elsewhere, and draws paint few digits. The error is "
    "about a tenth larger."
)
RUNS = {
    "wae_mmd": ["experiment=wae_mmd"],
    "without": ["experiment=wae_mmd", "model.penalties.mmd.weight=0"],
}


def check(runs: dict[str, Trained]) -> Outcome:
    """Means below 0.3, variances within 0.5 and 1.5, an MMD a tenth of the control's; error little larger."""
    matched = check_matched(runs, ("with the penalty", "without"))
    little = runs["wae_mmd"].metrics["test/sse"] < 1.15 * runs["without"].metrics["test/sse"]
    note = "The agreement is that of the 10 nearest training images; for real test digits it is 0.95."
    return Outcome(matched.figures, matched.holds and little, matched.picture, note)
