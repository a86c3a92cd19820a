"""The UFLDL course of Ng et al., exercise "Implement deep networks for digit classification": two sparse layers."""

from reproductions import Figure, fine_tuned, metric

PROTOCOL = (
    "784-200-200-10, sigmoid units: two sparse autoencoders, one after the other, with half the squared error, a mean "
    "activation of 0.1 with weight 3 and weight decay of 3e-3; a softmax on their features; then all layers together. "
    "L-BFGS on all 60,000 images, 200 iterations a stage."
)
SOURCE = (
    "87 % before and 97 % after fine-tuning, a solution of the course "
    "([Stacked-Autoencoder](https://github.com/siddharth-agrawal/Stacked-Autoencoder))."
)
CHOICES = (
    "those of the two sparse layers are the course's; the softmax chooses its weight decay on a fifth of the training "
    "images."
)
DIFFERENCES = (
    "the softmax on the features has a bias and reads centred and scaled features, the solution's has a weight decay "
    "of 3e-3 and reads them as they are; fine-tuning begins with a new softmax layer, and has no weight decay. 200 "
    "iterations are at most 250 evaluations of the loss."
)
REMARKS = (
    "the weaker weight decay of the softmax is the likely cause of the higher first figure. From a random start the "
    "same fine-tuning reaches nearly as much, so that the second figure does not show a gain by pretraining."
)
RUNS = {"mnist": ["experiment=ufldl_stacked"]}
FIGURES = (
    Figure(
        "softmax on the features, accuracy, %", "87", metric("mnist", "test/probe_linear"), low=87.0, short_low=85.0
    ),
    Figure("fine-tuned, accuracy, %", "97", fine_tuned("mnist"), low=97.0, short_low=90.0),
    Figure("random start, fine-tuned, accuracy, %", "-", fine_tuned("mnist", "_random")),
)
SHORT = [
    *("dataset.subset=2000", "dataset.test_subset=2000", "batch_size=2000", "measures.fine_tuning.batch_size=2000"),
    *("pretrain.epochs=4", "measures.fine_tuning.epochs=4"),
]
