"""Kingma & Welling (2014): a code drawn from the prior is painted as a digit nobody has written."""

from experiments import Outcome
from likeness import draws, likeness

from aetrain.api import Trained
from aetrain.storage.run_directory import RunDirectory
from aetrain.views.render import grid, write_png

CLAIM = (
    "The 784-400-20 variational autoencoder reaches a negative ELBO of at most 107 nats on the test set in 7 epochs "
    "(pytorch/examples reports 106.66) and 106.5 in 10, and paints digits of codes drawn from the prior."
)
RUNS = {"vae": ["experiment=vae"]}


def check(runs: dict[str, Trained]) -> Outcome:
    """Negative ELBO by epoch, from the history; all ten digits among 500 draws from the prior."""
    run = runs["vae"]
    by_epoch = {line["epoch"]: line["test/neg_elbo"] for line in RunDirectory(run.directory).history()}
    pictures = draws(run)
    judged = likeness(pictures)
    path = run.directory / "figures" / "prior.png"
    write_png(grid(pictures[:60], columns=10), path)
    figures = {
        "test negative ELBO after 7 epochs, nats": by_epoch.get(7, float("nan")),
        "test negative ELBO after 10 epochs, nats": by_epoch.get(10, float("nan")),
        "digits among 500 draws from the prior": judged.classes,
        "share of the 10 nearest training images that agree on the digit, draws from the prior": float(
            judged.agreement.mean()
        ),
    }
    holds = by_epoch.get(7, 999) <= 107 and by_epoch.get(10, 999) <= 106.5 and judged.classes == 10
    return Outcome(figures, holds, path)
