"""Tolstikhin et al. (2018): a distance of samples does what a critic does, without a second network."""

import torch
from experiments import Outcome
from likeness import codes_of_test, likeness, mmd_to_normal, moments
from sheets import beside

from aetrain.library import Trained
from aetrain.views.render import grid

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
    figures: dict[str, float] = {}
    judged, sheets, mmd, codes = {}, {}, {}, {}
    for name, run in runs.items():
        title = "with the penalty" if name == "wae_mmd" else "without"
        z = run.model.prior(500, torch.Generator().manual_seed(0))
        assert z is not None
        pictures = run.decode(z)
        judged[name], sheets[title] = likeness(pictures), grid(pictures[:60], columns=10)
        coded = codes_of_test(run)
        codes[name], mmd[name] = moments(coded), mmd_to_normal(coded)
        mean, low, high = codes[name]
        agreement = float(judged[name].agreement.mean())
        figures |= {
            f"largest mean of a unit, {title}": mean,
            f"smallest variance in any direction, {title}": low,
            f"largest variance in any direction, {title}": high,
            f"squared MMD to the prior, {title}": mmd[name],
            f"how many digits 500 draws are, each counted by how often, {title}": judged[name].variety,
            f"share of nearest training images that agree on the digit, {title}": agreement,
            f"test SSE, {title}": run.metrics["test/sse"],
        }
    mean, low, high = codes["wae_mmd"]
    holds = (
        mean < 0.3
        and low > 0.5
        and high < 1.5
        and mmd["wae_mmd"] < 0.1 * mmd["without"]
        and judged["wae_mmd"].classes == 10
        and judged["wae_mmd"].agreement.mean() > 0.8
        and judged["wae_mmd"].variety > 2 * judged["without"].variety
        and runs["wae_mmd"].metrics["test/sse"] < 1.15 * runs["without"].metrics["test/sse"]
    )
    note = "The agreement is that of the 10 nearest training images; for real test digits it is 0.95."
    picture = beside(runs["wae_mmd"].directory / "figures" / "prior.png", sheets.values(), sheets)
    return Outcome(figures, holds, picture, note)
