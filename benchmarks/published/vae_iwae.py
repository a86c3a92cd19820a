"""Burda et al. (2016), "Importance weighted autoencoders": one stochastic layer, MNIST, 1, 5 and 50 samples."""

from reproductions import Figure, Runs, metric

PROTOCOL = (
    "784-200-200-50, tanh units, pixels drawn from their grey values at every presentation, 59,600 training images, "
    "batches of 20, Adam with second moments that start at one, stages of 3^i epochs at rates of 0.001 * 10^(-i/7). "
    "The negative log-likelihood of the 10,000 test images by 5,000 importance samples; 1, 5 or 50 samples in "
    "training."
)
SOURCE = (
    "86.76, 85.54 and 84.78 in Burda et al. (2016, arXiv:1509.00519), table 1, as quoted by "
    "[nbip](https://github.com/nbip/IWAE); the recipe is that of the [authors' "
    "program](https://github.com/yburda/iwae)."
)
CHOICES = "those of the authors' program."
DIFFERENCES = (
    "the schedule ends after four of eight stages for each number of samples, 40 epochs of 3,280, which is the most "
    "that 50 samples allow in two hours; the published figures have all eight. The gradient is the mean over a batch, "
    "there the sum, so that second moments of one and the constant of 1e-4 beside their roots make the first steps, "
    "and those of small gradients, smaller than there. Images have a new order in each epoch; rates are not rounded; "
    "the 400 validation images are random, there the last ones."
)
REMARKS = (
    "the order of the paper after 40 epochs, with 19, 22 and 30 active units. The run with 50 samples was resumed "
    "twice, with two threads from epoch 11 on. The full 3,280 epochs with one sample were not run."
)
RUNS = {
    "1": ["experiment=vae_iwae", "model.penalties.iwae.samples=1", "epochs=40"],
    "5": ["experiment=vae_iwae", "model.penalties.iwae.samples=5", "epochs=40"],
    "50": ["experiment=vae_iwae", "model.penalties.iwae.samples=50", "epochs=40"],
}
NLL = "test/is_nll_5000"


def gain(fewer: str, more: str) -> Figure:
    """Return the figure of the gain by more samples."""
    return Figure(
        f"gain of {more} samples over {fewer}, nats",
        {"5": "1.22", "50": "0.76"}[more],
        lambda runs: compute_gain(runs, fewer, more),
        low=0.0,
        short_low=1.0 if more == "5" else None,
    )


def compute_gain(runs: Runs, fewer: str, more: str) -> float:
    """Return by how many nats the likelihood is higher with more samples."""
    return runs[fewer][NLL] - runs[more][NLL]


FIGURES = (
    Figure("negative log-likelihood, 1 sample, nats", "86.76", metric("1", NLL), short_low=80.0, short_high=150.0),
    Figure("negative log-likelihood, 5 samples, nats", "85.54", metric("5", NLL)),
    Figure("negative log-likelihood, 50 samples, nats", "84.78", metric("50", NLL)),
    gain("1", "5"),
    gain("5", "50"),
)
SHORT = [
    *("dataset.subset=2500", "dataset.test_subset=50", "dataset.validation=50", "epochs=6"),
    "optimizer.initial_second_moment=0",  # from ones, training is slow at first
]
SHORT_RUNS = ("1", "5")
