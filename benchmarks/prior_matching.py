"""The check that the experiments share whose codes are matched to a prior."""

from dataclasses import dataclass
from pathlib import Path

from generated_images import codes_of_test, decoded_samples, mmd_to_normal, moments, vote_digits
from pictures import beside
from torch import Tensor

from aetrain.api import Trained
from aetrain.views.render import grid


@dataclass(frozen=True)
class PriorMatch:
    """The distance of the codes of all test images from N(0, I), and the digits that draws from it decode into."""

    metrics: dict[str, float]
    holds: bool
    picture: Path


@dataclass(frozen=True)
class PriorMetrics:
    """The measurements of one run."""

    mean: float  # largest of a unit
    low: float  # smallest variance in any direction
    high: float  # largest variance in any direction
    mmd: float
    perplexity: float
    agreement: float
    classes: int
    sse: float

    def named(self, title: str) -> dict[str, float]:
        """Return the metrics by the names of the table."""
        return {
            f"largest mean of a unit, {title}": self.mean,
            f"smallest variance in any direction, {title}": self.low,
            f"largest variance in any direction, {title}": self.high,
            f"squared MMD to the prior, {title}": self.mmd,
            f"perplexity of the digits of 500 draws, {title}": self.perplexity,
            f"share of nearest training images that agree on the digit, {title}": self.agreement,
            f"test SSE, {title}": self.sse,
        }


def check_matched(runs: dict[str, Trained], titles: tuple[str, str]) -> PriorMatch:
    """Compare the first run with its control, the second; `titles` name them in the table.

    The codes must have means below 0.3, variances between 0.5 and 1.5, and a tenth of the control's MMD. The draws must
    decode into all ten digits, with more than twice the control's perplexity.
    """
    samples = [decoded_samples(run) for run in runs.values()]
    matched, control = (measure(run, images) for run, images in zip(runs.values(), samples, strict=True))
    holds = (
        matched.mean < 0.3
        and matched.low > 0.5
        and matched.high < 1.5
        and matched.mmd < 0.1 * control.mmd
        and matched.classes == 10
        and matched.agreement > 0.8
        and matched.perplexity > 2 * control.perplexity
    )
    path = next(iter(runs.values())).directory / "figures" / "prior.png"
    beside(path, [grid(images[:60], columns=10) for images in samples], titles)
    return PriorMatch(matched.named(titles[0]) | control.named(titles[1]), holds, path)


def measure(run: Trained, images: Tensor) -> PriorMetrics:
    """Return the measurements of a run whose draws decode into `images` [N, 1, 28, 28]."""
    codes, votes = codes_of_test(run), vote_digits(images)
    mean, low, high = moments(codes)
    agreement = float(votes.agreement.mean())
    mmd, sse = mmd_to_normal(codes), run.metrics["test/sse"]
    return PriorMetrics(mean, low, high, mmd, votes.perplexity, agreement, votes.classes, sse)
