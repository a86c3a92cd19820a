"""Makhzani & Frey (2013), "k-sparse autoencoders": logistic regression on the features of MNIST."""

from reproductions import Figure, metric

PROTOCOL = (
    "784-1000, linear units with tied weights, of which the k = 25 largest are kept; k falls from a larger number in "
    "the first half of training. Logistic regression classifies the codes of the test images."
)
SOURCE = "1.35 % in Makhzani & Frey (2013, arXiv:1312.5663), table 2; the number is from memory and was not read again."
CHOICES = (
    "Adam at 1e-3, batches of 100, 100 epochs. The classifier reads 2 k units, chosen among k, 2 k and 3 k on held-out "
    "training images (errors of 2.56, 2.19 and 2.22 % after 20 epochs)."
)
REMARKS = (
    "raw pixels have an error of 7.4 %. More epochs, other schedules of k and momentum were not compared on held-out "
    "images; the paper trains far longer."
)
RUNS = {"mnist": ["experiment=ksparse"]}
FIGURES = (
    Figure(
        "error of logistic regression on the code, %",
        "1.35",
        metric("mnist", "test/probe_linear", factor=-1, offset=100),
        high=1.8,
        short_high=8.0,
    ),
)
SHORT = ["dataset.subset=2000", "dataset.test_subset=1000", "epochs=8"]
