"""Burda et al. (2016): more draws of the code in training give a better model after the same number of steps."""

from experiments import Outcome

from aetrain.api import Trained

CLAIM = (
    "Trained for 5 epochs with 50 draws of the code per image, 784-200-200-50 gives test images a higher likelihood "
    "than with 5 draws, and with 5 a higher one than with 1 (the variational autoencoder). Published after 3,280 "
    "epochs: 84.78, 85.54 and 86.76 nats."
)
LESSON = "More samples per image give a higher likelihood."
RESULT = (
    "NLL {test NLL by 500 draws, nats, trained with 50 draws} nats with 50 samples, {test NLL by 500 draws, nats, "
    "trained with 1 draw} with 1"
)
RUNS = {
    "iwae5": ["experiment=iwae"],
    "vae": ["experiment=iwae", "model.penalties.iwae.samples=1"],
    "iwae50": ["experiment=iwae", "model.penalties.iwae.samples=50"],
}
NAMES = {"vae": "1 draw", "iwae5": "5 draws", "iwae50": "50 draws"}


def check(runs: dict[str, Trained]) -> Outcome:
    """Check the order of -log p(x) of binary pixels, estimated with 500 draws per image."""
    nll = {run: runs[run].metrics["test/is_nll_500"] for run in NAMES}
    metrics = {f"test NLL by 500 draws, nats, trained with {name}": nll[run] for run, name in NAMES.items()}
    metrics |= {f"test negative ELBO, nats, {name}": runs[run].metrics["test/is_nll_1"] for run, name in NAMES.items()}
    metrics |= {f"active units of 50, {name}": runs[run].metrics["test/active_units"] for run, name in NAMES.items()}
    note = (
        "Pixels are drawn from their grey values, at every presentation during training and once for the test. "
        "[docs/likelihood.md](likelihood.md) has the published results beside these, and other models."
    )
    return Outcome(metrics, nll["iwae50"] < nll["iwae5"] < nll["vae"], note=note)
