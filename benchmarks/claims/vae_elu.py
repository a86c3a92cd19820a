"""The course's deeper VAE: 60 digits decoded from the prior; the KL in closed form is the Monte Carlo estimate."""

import math

import torch
from evidence import pixels
from experiments import Outcome
from likeness import draws, likeness, mnist
from torch.distributions import Normal

from aetrain.api import Trained
from aetrain.model.records import GaussianCode
from aetrain.objective.penalties import GaussianKL
from aetrain.views.render import grid, write_png

CLAIM = (
    "784-500-500-20 with ELU units, He initialisation and batches of 150 paints 60 digits of draws from the prior; the "
    "closed form of its KL is the Monte Carlo estimate."
)
RUNS = {"vae_elu": ["experiment=vae_elu"]}
IMAGES, DRAWS = 200, 2000


def check(runs: dict[str, Trained]) -> Outcome:
    """KL of 200 test images, 2000 draws each, within 5 standard errors; all ten digits among 500 draws."""
    run = runs["vae_elu"]
    with torch.no_grad():
        out = run.model(pixels(mnist().test, IMAGES))
        assert isinstance(out.code, GaussianCode)
        closed = float(GaussianKL()(run.model, out).mean())
        q, p = Normal(out.code.mean.double(), (0.5 * out.code.log_var.double()).exp()), Normal(0.0, 1.0)
        torch.manual_seed(0)
        sample = q.sample(torch.Size([DRAWS]))
        drawn = (q.log_prob(sample) - p.log_prob(sample)).sum(2).mean(1)  # [DRAWS] each a mean over the images
    error = float(drawn.std()) / math.sqrt(DRAWS)
    pictures = draws(run)
    judged = likeness(pictures)
    path = run.directory / "figures" / "prior.png"
    write_png(grid(pictures[:60], columns=10), path)
    figures = {
        "test negative ELBO, nats": run.metrics["test/neg_elbo"],
        "KL in closed form, nats": closed,
        "KL by Monte Carlo, nats": float(drawn.mean()),
        "standard error of the latter": error,
        "digits among 500 draws from the prior": judged.classes,
        "share of the 10 nearest training images that agree on the digit, draws from the prior": float(
            judged.agreement.mean()
        ),
    }
    return Outcome(figures, abs(closed - float(drawn.mean())) < 5 * error and judged.classes == 10, path)
