"""The check that the models share whose codes are matched to a prior."""

from dataclasses import dataclass
from pathlib import Path

from likeness import codes_of_test, draws, likeness, mmd_to_normal
from sheets import beside

from aetrain.api import Trained
from aetrain.views.render import grid


@dataclass(frozen=True)
class DeterministicWithPrior:
    """How near the codes of all test images are to N(0, I), and what draws from it are painted as."""

    figures: dict[str, float]
    holds: bool
    picture: Path


def check_matched(runs: dict[str, Trained], titles: tuple[str, str]) -> DeterministicWithPrior:
    """The first run against its control, the second; `titles` name them in the figures.

    Means below 0.3, variances within 0.5 and 1.5, an MMD a tenth of the control's; draws are digits of all ten kinds,
    with more than twice the control's variety.
    """
    figures: dict[str, float] = {}
    judged, sheets, mmd, codes = [], {}, [], []
    for title, run in zip(titles, runs.values(), strict=True):
        pictures, coded = draws(run), codes_of_test(run)
        judged.append(likeness(pictures))
        sheets[title] = grid(pictures[:60], columns=10)
        codes.append(kill_points(coded))
        mmd.append(mmd_to_normal(coded))
        mean, low, high = codes[-1]
        figures |= {
            f"largest mean of a unit, {title}": mean,
            f"smallest variance in any direction, {title}": low,
            f"largest variance in any direction, {title}": high,
            f"squared MMD to the prior, {title}": mmd[-1],
            f"how many digits 500 draws are, each counted by how often, {title}": judged[-1].variety,
            f"share of nearest training images that agree on the digit, {title}": float(judged[-1].agreement.mean()),
            f"test SSE, {title}": run.metrics["test/sse"],
        }
    mean, low, high = codes[0]
    ours, control = judged
    holds = bool(
        mean < 0.3
        and low > 0.5
        and high < 1.5
        and mmd[0] < 0.1 * mmd[1]
        and ours.classes == 10
        and ours.agreement.mean() > 0.8
        and ours.variety > 2 * control.variety
    )
    first = next(iter(runs.values()))
    return DeterministicWithPrior(
        figures, holds, beside(first.directory / "figures" / "prior.png", sheets.values(), sheets)
    )
