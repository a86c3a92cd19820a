"""Kingma & Welling (2014): draws from the prior decode into new digits."""

from experiments import Outcome
from generated_images import decoded_samples, vote_digits

from aetrain.api import Trained
from aetrain.storage.run_directory import RunDirectory
from aetrain.views.render import grid, write_png

CLAIM = (
    "The 784-400-20 variational autoencoder reaches a negative ELBO of at most 107 nats on the test set in 7 epochs "
    "(pytorch/examples reports 106.66) and 106.5 in 10, and decodes draws from the prior into digits."
)
LESSON = "A variational autoencoder reaches the published ELBO and samples digits."
RESULT = "-ELBO {test negative ELBO after 7 epochs, nats} nats after 7 epochs, published 106.66"
RUNS = {"vae": ["experiment=vae"]}


def check(runs: dict[str, Trained]) -> Outcome:
    """Check the negative ELBO after 7 and 10 epochs, and that 500 draws from the prior have all ten digits."""
    run = runs["vae"]
    by_epoch = {line["epoch"]: line["test/neg_elbo"] for line in RunDirectory(run.directory).history()}
    pictures = decoded_samples(run)
    votes = vote_digits(pictures)
    path = run.directory / "figures" / "prior.png"
    write_png(grid(pictures[:60], columns=10), path)
    metrics = {
        "test negative ELBO after 7 epochs, nats": by_epoch.get(7, float("nan")),
        "test negative ELBO after 10 epochs, nats": by_epoch.get(10, float("nan")),
        "digits among 500 draws from the prior": votes.classes,
        "share of the 10 nearest training images that agree on the digit, draws from the prior": float(
            votes.agreement.mean()
        ),
    }
    holds = by_epoch.get(7, 999) <= 107 and by_epoch.get(10, 999) <= 106.5 and votes.classes == 10
    return Outcome(metrics, holds, path)
