"""Higgins et al. (2017): a weight above 1 on the KL gives a simpler code and a larger error."""

from pathlib import Path

from experiments import Outcome
from matplotlib.figure import Figure

from aetrain.api import Trained

CLAIM = "A larger weight (beta) on the KL lowers the KL and raises the reconstruction error, step by step."
LESSON = "A larger beta trades reconstruction for a lower KL."
RESULT = "KL {KL at beta=1, nats} nats at beta 1, {KL at beta=4, nats} at beta 4"
BETAS = (4, 0.5, 1, 2, 8)
RUNS = {f"beta={beta}": ["experiment=beta_vae", f"model.penalties.kl.weight={beta}"] for beta in BETAS}
RUNS["beta=4"] = ["experiment=beta_vae"]  # the experiment's own


def check(runs: dict[str, Trained]) -> Outcome:
    """Check that the KL falls and both errors rise at every step of the sweep; draw the rate-distortion curve."""
    ordered = sorted(BETAS)
    run_metrics = [runs[f"beta={beta}"].metrics for beta in ordered]
    kl = [run["test/kl"] for run in run_metrics]
    nll = [run["test/nll"] for run in run_metrics]
    sse = [run["test/sse"] for run in run_metrics]
    units = [run["test/active_units"] for run in run_metrics]
    metrics = {f"KL at beta={beta}, nats": value for beta, value in zip(ordered, kl, strict=True)}
    metrics |= {f"squared error at beta={beta}": value for beta, value in zip(ordered, sse, strict=True)}
    metrics |= {f"active units at beta={beta}": value for beta, value in zip(ordered, units, strict=True)}
    holds = kl == sorted(kl, reverse=True) and sse == sorted(sse) and nll == sorted(nll)

    path = runs["beta=4"].directory / "figures" / "rate_distortion.png"
    draw_rate_distortion(kl, nll, ordered, path)
    return Outcome(metrics, holds, path)


def draw_rate_distortion(kl: list[float], nll: list[float], betas: list[float], path: Path) -> None:
    """Draw the KL of each beta against its nll, and write the picture to `path`."""
    figure = Figure(figsize=(6, 4), layout="constrained")
    axes = figure.add_subplot()
    axes.plot(kl, nll, "o-", color="#1f77b4")
    for beta, x, y in zip(betas, kl, nll, strict=True):
        axes.annotate(f"β = {beta:g}", (x, y), xytext=(8, 4), textcoords="offset points")
    axes.margins(x=0.15, y=0.1)
    axes.set(xlabel="rate: KL to the prior, nats", ylabel="distortion: nll of the image, nats")
    axes.grid(alpha=0.3)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=120)
