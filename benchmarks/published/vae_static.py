"""Chadebec et al. (2022), Pythae: the variational autoencoder of Rezende & Mohamed (2015) on binary MNIST."""

from reproductions import Figure, Runs, metric

PROTOCOL = (
    "784-400-40, rectified units, pixels binarised once, 50,000 training and 10,000 validation images, batches of "
    "100, 500 epochs of Adam, whose rate is divided by 10^(1/5) after 200 and 350 epochs; the weights of the best "
    "validation epoch. The negative log-likelihood of the 10,000 test images by 200 importance samples."
)
SOURCE = (
    "89.78 ± 0.01, the reproduction of 89.9 in "
    "[benchmark_VAE](https://github.com/clementchadebec/benchmark_VAE/tree/main/examples/scripts/reproducibility)."
)
CHOICES = (
    "the rate of 1e-3 is better than the published one of 1e-4 by the loss of the validation images, 98.27 and 98.97 "
    "nats; the epoch is chosen by the same loss."
)
DIFFERENCES = (
    "the binary pixels are a draw of this software and the validation images are random, where the program reads "
    "Larochelle's file; the rate is 1e-3."
)
REMARKS = (
    "the first run had the published rate of 1e-4 and 92.51 nats, with a validation loss that still fell at the end. "
    "At 1e-3 the loss is best at epoch 357 of 500. A loop by hand in torch with another draw of the pixels agrees "
    "with the run at 1e-4: after ten epochs, the training loss is 126.01 nats there and 126.06 here, the test loss "
    "123.91 and 123.88. So the likely cause is the data, or a setting that the program does not show; other rates "
    "were not compared."
)
RUNS = {"mnist": ["experiment=vae_static"]}


def compute_gain(runs: Runs) -> float:
    """Return the bound of the likelihood by one draw of the code less that by 200."""
    return runs["mnist"]["test/is_nll_1"] - runs["mnist"]["test/is_nll_200"]


FIGURES = (
    Figure(
        "negative log-likelihood, nats",
        "89.78",
        metric("mnist", "test/is_nll_200"),
        high=90.6,
        short_low=110.0,
        short_high=135.0,
    ),
    Figure("negative ELBO less that, nats", "-", compute_gain, short_low=3.0),
)
SHORT = [
    *("dataset.subset=5000", "dataset.test_subset=500", "dataset.validation=500", "epochs=10"),
    "schedule.milestones=[8]",
]
