"""Burda et al. (2016): more draws of the code in training make a better model at the same number of steps."""

from experiments import Outcome

from aetrain.api import Trained

CLAIM = (
    "Trained for 5 epochs with 50 draws of the code an image, 784-200-200-50 gives test images a higher likelihood "
    "than with 5, and with 5 a higher one than with 1, the variational autoencoder; published after 3,280 epochs: "
    "84.78, 85.54 and 86.76 nats."
)
RUNS = {
    "iwae5": ["experiment=iwae"],
    "vae": ["experiment=iwae", "model.penalties.iwae.samples=1"],
    "iwae50": ["experiment=iwae", "model.penalties.iwae.samples=50"],
}
NAMES = {"vae": "1 draw", "iwae5": "5 draws", "iwae50": "50 draws"}


def check(runs: dict[str, Trained]) -> Outcome:
    """-log p(x) by 500 draws an image, of binary pixels, and the units of the code that are in use."""
    nll = {run: runs[run].metrics["test/is_nll_500"] for run in NAMES}
    figures = {f"test NLL by 500 draws, nats, trained with {name}": nll[run] for run, name in NAMES.items()}
    figures |= {f"test negative ELBO, nats, {name}": runs[run].metrics["test/is_nll_1"] for run, name in NAMES.items()}
    figures |= {f"active units of 50, {name}": runs[run].metrics["test/active_units"] for run, name in NAMES.items()}
    note = (
        "Pixels are drawn from their grey values, anew at every presentation while training and once for the test. "
        "[docs/likelihood.md](likelihood.md) has the published figures beside these, and other models."
    )
    return Outcome(figures, nll["iwae50"] < nll["iwae5"] < nll["vae"], note=note)
