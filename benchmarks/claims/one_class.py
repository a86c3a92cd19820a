"""A convolutional autoencoder that was trained on one digit tells the other digits from it, for each of ten digits."""

import statistics

from experiments import Outcome

import aetrain
from aetrain.api import Trained

CLAIM = (
    "Trained on the images of one digit alone, a convolutional autoencoder finds the other digits among all test "
    "images by the distance of their codes to the training codes: the mean area under the ROC curve of the ten digits "
    "is at least 0.90, and above those of PCA with as many components as the code has units and of an isolation forest."
)
LESSON = "A model of one class finds the others, by the distance of codes better than by the error."
RESULT = (
    "mean area under the ROC curve by the distance of codes {mean, distance of codes}, by the squared error "
    "{mean, squared error}; PCA {mean, PCA}, isolation forest {mean, isolation forest}"
)
RUNS = {
    f"digit{digit}": ["experiment=one_class", f"dataset.train_classes=[{digit}]", "views=none"] for digit in range(10)
}
SCORES = {"distance of codes": "_code_distance", "squared error": "", "PCA": "_pca", "isolation forest": "_forest"}
SHOWN = "digit8"  # the run of the picture


def check(runs: dict[str, Trained]) -> Outcome:
    """Check the mean area of the ten digits against 0.90 and against the baselines."""
    areas = {
        f"{name.removeprefix('digit')}, {score}": run.metrics[f"test/roc_auc{ending}"]
        for name, run in runs.items()
        for score, ending in SCORES.items()
    }
    means = {
        f"mean, {score}": statistics.mean(run.metrics[f"test/roc_auc{ending}"] for run in runs.values())
        for score, ending in SCORES.items()
    }
    area, baselines = means["mean, distance of codes"], (means["mean, PCA"], means["mean, isolation forest"])
    aetrain.run([f"run={runs[SHOWN].directory}", "mode=score", "mode.score=code_distance"])
    note = (
        "Metrics are areas under the ROC curve of the 10,000 test images; the rows are the normal digit. Ruff et al. "
        "(2018) report means of 0.897 for a convolutional autoencoder and 0.948 for Deep SVDD, of images with another "
        "normalisation of contrast. The network, the epochs and the score were chosen on training images of the digits "
        "2, 5 and 8 alone ([anomalies.md](anomalies.md)). The picture has the test images that are the most unusual "
        "for the model of the digit 8."
    )
    picture = runs[SHOWN].directory / "score" / "most_unusual.png"
    return Outcome({**means, **areas}, area >= 0.90 and area > max(baselines), picture, note)
