"""Ruff et al. (2018), "Deep one-class classification": one digit of MNIST is normal, by a convolutional autoencoder."""

import statistics
from collections.abc import Callable

from reproductions import Figure, Runs

PROTOCOL = (
    "A convolutional autoencoder is trained on the training images of one digit. All 10,000 test images are scored; "
    "the figure is the area under the ROC curve of the other digits, mean over the ten digits."
)
SOURCE = (
    "0.897 for the error of a convolutional autoencoder (DCAE) and 0.948 for Deep SVDD, Ruff et al. (2018), table 1; "
    "0.897 is from memory and was not read again."
)
CHOICES = (
    "the size of the code, the epochs and the score of codes were chosen on training images of the digits 2, 5 and 8 "
    "alone ([anomalies.md](anomalies.md))."
)
DIFFERENCES = (
    "images have no global contrast normalisation, 500 images of the digit are held out, and the network is this "
    "software's `model=conv`, trained by the cross-entropy of grey pixels."
)
RUNS = {f"digit{digit}": ["experiment=one_class", f"dataset.train_classes=[{digit}]"] for digit in range(10)}


def mean_area(ending: str) -> Callable[[Runs], float]:
    """Return the function that computes the mean area of a score over the digits."""
    return lambda runs: statistics.mean(metrics[f"test/roc_auc{ending}"] for metrics in runs.values())


FIGURES = (
    Figure("mean area, by the squared error", "0.897", mean_area(""), low=0.89, short_low=0.89),
    Figure("mean area, by the distance of codes", "-", mean_area("_code_distance"), short_low=0.92),
    Figure("mean area, by the error of PCA", "-", mean_area("_pca")),
    Figure("mean area, by an isolation forest", "-", mean_area("_forest")),
)
SHORT = ["dataset.subset=4000", "dataset.test_subset=2000", "dataset.validation=100", "epochs=15"]
SHORT_RUNS = ("digit0", "digit8")
