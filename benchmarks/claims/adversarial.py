"""Makhzani et al. (2016): a critic shapes the codes of all images into the prior, and draws from it become digits."""

import torch
from experiments import Outcome
from likeness import codes_of_test, likeness, mmd_to_normal, moments
from sheets import beside

from aetrain.directory import RunDirectory
from aetrain.library import Trained
from aetrain.views.render import grid

CLAIM = (
    "With a critic the codes of all test images together are close to the prior N(0, I), and draws from it are painted "
    "as digits of every kind; without it the codes are elsewhere, and draws paint few digits."
)
RUNS = {
    "adversarial": ["experiment=adversarial"],
    "without": ["experiment=adversarial", "model.penalties.critic.weight=0"],
}


def check(runs: dict[str, Trained]) -> Outcome:
    """Means below 0.3, variances within 0.5 and 1.5, an MMD a tenth of the control's, no walk-over for the critic."""
    figures: dict[str, float] = {}
    judged, sheets, mmd, codes = {}, {}, {}, {}
    for name, run in runs.items():
        title = "with the critic" if name == "adversarial" else "without"
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
    last = RunDirectory(runs["adversarial"].directory).history()[-1]
    figures["critic's accuracy in the last epoch (one half is a guess)"] = accuracy = last["train/critic_accuracy"]
    mean, low, high = codes["adversarial"]
    holds = (
        mean < 0.3
        and low > 0.5
        and high < 1.5
        and mmd["adversarial"] < 0.1 * mmd["without"]
        and 0.5 <= accuracy < 0.9
        and judged["adversarial"].classes == 10
        and judged["adversarial"].agreement.mean() > 0.8
        and judged["adversarial"].variety > 2 * judged["without"].variety
    )
    note = (
        "Smaller than the paper's network (784-1000-1000-8), with one step of the optimizer for reconstruction and "
        "regularisation together. The agreement is that of the 10 nearest training images; of test digits it is 0.95."
    )
    picture = beside(runs["adversarial"].directory / "figures" / "prior.png", sheets.values(), sheets)
    return Outcome(figures, holds, picture, note)
