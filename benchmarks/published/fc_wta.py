"""Makhzani & Frey (2015), "Winner-take-all autoencoders": a linear SVM on the features of MNIST."""

from reproductions import Figure, metric

PROTOCOL = (
    "784-2000, rectified units with tied weights, each active for 5 % of a training batch; squared error. All units "
    "are kept in the features of the 60,000 training and 10,000 test images, which a linear SVM classifies."
)
SOURCE = (
    "98.8 % in Makhzani & Frey (2015, arXiv:1409.2752), as quoted by the re-run "
    "[tensorflow-fcwta](https://github.com/guoguo12/tensorflow-fcwta), which has 98.62 %."
)
CHOICES = (
    "Adam at 1e-3, batches of 100 and 50 epochs are those of the re-run. The strength of the SVM's regularisation is "
    "chosen on a fifth of the training images."
)
DIFFERENCES = "weights begin as torch draws them, there as normal draws of deviation 0.01."
RUNS = {"mnist": ["experiment=fc_wta"]}
FIGURES = (
    Figure(
        "accuracy of a linear SVM on the features, %",
        "98.8",
        metric("mnist", "test/probe_svm"),
        low=98.4,
        short_low=94.5,
    ),
)
SHORT = ["dataset.subset=4000", "dataset.test_subset=1000", "model.code_dim=500", "epochs=20"]
