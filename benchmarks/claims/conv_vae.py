"""A convolutional VAE, compared with a dense one of as many weights."""

from experiments import Outcome
from generated_images import decoded_samples, vote_digits
from pictures import beside

from aetrain.api import Trained
from aetrain.views.render import grid

CLAIM = "A convolutional VAE reaches a better negative ELBO than a dense one with as many weights and code units."
LESSON = "A convolutional VAE beats a dense one with as many weights."
RESULT = "-ELBO {test negative ELBO, nats, convolutional} nats, dense {test negative ELBO, nats, dense}"
RUNS = {
    "conv_vae": ["experiment=conv_vae"],
    "dense": ["experiment=vae", "model.hidden=[64]", "epochs=5"],
}


def check(runs: dict[str, Trained]) -> Outcome:
    """Check that the negative ELBO is lower, with at most 2 % more weights than the dense network has."""
    metrics: dict[str, float] = {}
    sheets = {}
    for name, title in {"conv_vae": "convolutional", "dense": "dense"}.items():
        run = runs[name]
        pictures = decoded_samples(run)
        sheets[f"{title}, draws from the prior"] = grid(pictures[:60], columns=10)
        metrics |= {
            f"weights, {title}": run.metrics["weights"],
            f"test negative ELBO, nats, {title}": run.metrics["test/neg_elbo"],
            f"test KL, nats, {title}": run.metrics["test/kl"],
            f"share of nearest training images that agree on the digit, {title}": float(
                vote_digits(pictures).agreement.mean()
            ),
        }
    conv, dense = (runs[name].metrics for name in ("conv_vae", "dense"))
    holds = conv["test/neg_elbo"] < dense["test/neg_elbo"] and conv["weights"] < 1.02 * dense["weights"]
    note = "Both for 5 epochs, from the mean image."
    picture = beside(runs["conv_vae"].directory / "figures" / "prior.png", sheets.values(), sheets)
    return Outcome(metrics, holds, picture, note)
