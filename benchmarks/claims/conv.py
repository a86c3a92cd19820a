"""The tutorial's convolutional network on Fashion-MNIST, compared with dense networks of as many weights."""

from experiments import Outcome
from measurements import one_of_each_class, pca_of, splits_of
from pictures import rows

from aetrain.api import Trained

CLAIM = "A convolutional autoencoder reconstructs clothes with a smaller error than a dense one with as many weights."
LESSON = "Convolutions reach a lower error than dense layers with as many weights."
RESULT = "SSE {test SSE, convolutional}, dense {test SSE, dense 784-3-784}"
DENSE = ["experiment=conv", "model.hidden=[]", "model.init=default", "model.code_activation=null", "views=none"]
RUNS = {
    "conv": ["experiment=conv"],
    "dense": [*DENSE, "model=linear", "model.code_dim=3"],
    "tied": [*DENSE, "model=tied", "model.code_dim=7"],
}


def check(runs: dict[str, Trained]) -> Outcome:
    """Check that the test error is below that of the dense network of nearest size and of the larger tied one."""
    conv, dense, tied = (runs[name].metrics for name in ("conv", "dense", "tied"))
    metrics = {
        "test SSE, convolutional": conv["test/sse"],
        "test SSE, dense 784-3-784": dense["test/sse"],
        "test SSE, dense and tied 784-7-784": tied["test/sse"],
        "test SSE of PCA-32, as many units but 50,960 numbers": conv["test/pca_sse"],
        "weights, convolutional": conv["weights"],
        "weights, dense": dense["weights"],
        "weights, tied": tied["weights"],
    }
    holds = conv["test/sse"] < min(dense["test/sse"], tied["test/sse"])
    data = splits_of(runs["conv"])
    x = one_of_each_class(data.test)
    picture = rows(
        runs["conv"].directory / "figures" / "beside.png",
        {
            "clothes": x,
            "conv": runs["conv"].reconstruct(x),
            "dense": runs["dense"].reconstruct(x),
            "tied": runs["tied"].reconstruct(x),
            "PCA-32": pca_of(data.train, 32).reconstruct(x),
        },
    )
    note = (
        "The convolutional network has 5,729 weights and a code of 8 x 2 x 2 = 32 units. A dense network of that size "
        "has 3 units (5,491 weights; with 4 it has 7,060), one with tied weights 7 (6,279, more than the "
        "convolutional one). All minimise the same loss with the same optimizer: the document's mean over pixels, to "
        "whose gradient its weight decay of 1e-5 is added."
    )
    return Outcome(metrics, holds, picture, note)
