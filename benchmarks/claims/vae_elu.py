"""The course's deeper VAE: draws from the prior decode into digits; the closed form of the KL is right."""

import math

import torch
from experiments import Outcome
from generated_images import decoded_samples, mnist, vote_digits
from measurements import pixels
from torch.distributions import Normal

from aetrain.api import Trained
from aetrain.model.codes import GaussianCode
from aetrain.objective.penalties import KL
from aetrain.views.render import grid, write_png

CLAIM = (
    "784-500-500-20 with ELU units, He initialisation and batches of 150 decodes 60 draws from the prior into digits. "
    "The closed form of its KL equals the Monte Carlo estimate."
)
LESSON = "The closed form of the KL equals its Monte Carlo estimate."
RESULT = "KL {KL in closed form, nats} nats, Monte Carlo {KL by Monte Carlo, nats}"
RUNS = {"vae_elu": ["experiment=vae_elu"]}
IMAGES, DRAWS = 200, 2000


def check(runs: dict[str, Trained]) -> Outcome:
    """Check the KL of 200 test images within 5 standard errors, and that 500 draws have all ten digits."""
    run = runs["vae_elu"]
    with torch.no_grad():
        out = run.model(pixels(mnist().test, IMAGES))
        assert isinstance(out.code, GaussianCode)
        closed = float(KL()(run.model, out).mean())
        q, p = Normal(out.code.mean.double(), (0.5 * out.code.log_var.double()).exp()), Normal(0.0, 1.0)
        torch.manual_seed(0)
        sample = q.sample(torch.Size([DRAWS]))
        estimates = (q.log_prob(sample) - p.log_prob(sample)).sum(2).mean(1)  # [DRAWS], means over the images
    error = float(estimates.std()) / math.sqrt(DRAWS)
    pictures = decoded_samples(run)
    votes = vote_digits(pictures)
    path = run.directory / "figures" / "prior.png"
    write_png(grid(pictures[:60], columns=10), path)
    metrics = {
        "test negative ELBO, nats": run.metrics["test/neg_elbo"],
        "KL in closed form, nats": closed,
        "KL by Monte Carlo, nats": float(estimates.mean()),
        "standard error of the latter": error,
        "digits among 500 draws from the prior": votes.classes,
        "share of the 10 nearest training images that agree on the digit, draws from the prior": float(
            votes.agreement.mean()
        ),
    }
    return Outcome(metrics, abs(closed - float(estimates.mean())) < 5 * error and votes.classes == 10, path)
