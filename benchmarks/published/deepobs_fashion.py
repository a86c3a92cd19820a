"""Schneider et al. (2019), "DeepOBS": the convolutional variational autoencoder of Fashion-MNIST."""

from reproductions import Figure, Runs

PROTOCOL = (
    "The problem `fmnist_vae` of the benchmark: convolutions with dropout, 8 units, the squared error plus the KL as "
    "loss, Adam at 1.585e-4 with batches of 64. The figure is the loss of the test images, with a sampled code."
)
SOURCE = (
    "23.074 ± 0.088 after 100 epochs (10 seeds), the raw results of "
    "[DeepOBS_Baselines](https://github.com/fsschneider/DeepOBS_Baselines)."
)
CHOICES = "all are those of the benchmark."
DIFFERENCES = "25 epochs instead of 100; the tolerance is that of 25 epochs."
RUNS = {"fashion": ["experiment=deepobs_fashion"]}


def loss(runs: Runs) -> float:
    """Return squared error + KL: the loss without the constant of the normal density."""
    return runs["fashion"]["test/loss"] - runs["fashion"]["nll_constant"]


FIGURES = (Figure("squared error + KL of a test image", "23.07", loss, high=25.0, short_low=20.0, short_high=58.0),)
SHORT = ["dataset.subset=1000", "dataset.test_subset=200", "epochs=2", "batch_size=16", "optimizer.lr=1e-3"]
