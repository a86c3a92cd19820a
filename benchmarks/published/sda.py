"""The Deep Learning Tutorials of LISA lab, "Stacked denoising autoencoders": fine-tuning after layer-wise denoising."""

from typing import Any

from reproductions import Figure, Runs, fine_tuned

PROTOCOL = (
    "784-1000-1000-1000-10, sigmoid units: three denoising autoencoders with tied weights, masking of 10, 20 and 30 % "
    "and cross-entropy, 15 epochs a layer by gradient descent; then encoder and softmax together on 50,000 labels, 36 "
    "epochs. The epoch with the best error on 10,000 validation images decides."
)
SOURCE = (
    "1.30 % ([SdA.txt](https://github.com/lisa-lab/DeepLearningTutorials/blob/master/doc/SdA.txt), which also has the "
    "validation error of 1.39 %)."
)
CHOICES = (
    "the rate of pretraining is the published one times the size of a batch; the rate of fine-tuning was chosen among "
    "0.2, 0.5 and 1 by the validation images, with 10,000 training images."
)
DIFFERENCES = (
    "batches of 20 images at rates of 0.02 and 1, where the tutorial has single images at rates of 0.001 and 0.1; 36 "
    "epochs of fine-tuning, after which early stopping ended the tutorial's."
)


def gain(runs: Runs) -> float:
    """Return the test error of the random start minus that of the pretrained network, in %."""
    return fine_tuned("mnist")(runs) - fine_tuned("mnist", "_random")(runs)


RUNS = {"mnist": ["experiment=sda"]}
ERROR: dict[str, Any] = {"factor": -1.0, "offset": 100.0}  # of an accuracy
FIGURES = (
    Figure("test error, %", "1.30", fine_tuned("mnist", **ERROR), high=1.45, short_high=12.0),
    Figure("test error of a random start less that of the pretrained network, %", "-", gain, low=0.0, short_low=0.0),
    Figure("validation error, %", "1.39", fine_tuned("mnist", "_validation", **ERROR)),
)
SHORT = [
    *("dataset.subset=3000", "dataset.validation=1000", "dataset.test_subset=2000", "pretrain.epochs=4"),
    *("model.hidden=[200,200]", "model.code_dim=200", "measures.fine_tuning.epochs=8"),
]
