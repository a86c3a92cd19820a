"""Higgins et al. (2017): a weight above 1 on the KL buys a simpler code with a larger error."""

from experiments import Outcome
from matplotlib.figure import Figure

from aetrain.api import Trained

CLAIM = "A larger weight (beta) on the KL lowers the KL and raises the reconstruction's error, step by step."
BETAS = (4, 0.5, 1, 2, 8)
RUNS = {f"beta={beta}": ["experiment=beta_vae", f"model.penalties.kl.weight={beta}"] for beta in BETAS}
RUNS["beta=4"] = ["experiment=beta_vae"]  # the experiment's own


def check(runs: dict[str, Trained]) -> Outcome:
    """KL falls and both errors rise at every step of the sweep; the picture is the rate-distortion curve."""
    ordered = sorted(BETAS)
    metrics = [runs[f"beta={beta}"].metrics for beta in ordered]
    kl, nll, sse, units = ([m[f"test/{name}"] for m in metrics] for name in ("kl", "nll", "sse", "active_units"))
    figures = {f"KL at beta={beta}, nats": value for beta, value in zip(ordered, kl, strict=True)}
    figures |= {f"squared error at beta={beta}": value for beta, value in zip(ordered, sse, strict=True)}
    figures |= {f"active units at beta={beta}": value for beta, value in zip(ordered, units, strict=True)}
    holds = kl == sorted(kl, reverse=True) and sse == sorted(sse) and nll == sorted(nll)

    figure = Figure(figsize=(6, 4), layout="constrained")
    axes = figure.add_subplot()
    axes.plot(kl, nll, "o-", color="#1f77b4")
    for beta, x, y in zip(ordered, kl, nll, strict=True):
        axes.annotate(f"β = {beta:g}", (x, y), xytext=(8, 4), textcoords="offset points")
    axes.margins(x=0.15, y=0.1)
    axes.set(xlabel="rate: KL to the prior, nats", ylabel="distortion: nll of the image, nats")
    axes.grid(alpha=0.3)
    path = runs["beta=4"].directory / "figures" / "rate_distortion.png"
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=120)
    return Outcome(figures, holds, path)
