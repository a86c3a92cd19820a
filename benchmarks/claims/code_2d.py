"""A code of two units is a map of the digits (Hinton & Salakhutdinov 2006, figure 3)."""

from experiments import Outcome
from measurements import knn_accuracy, pca_of, pixels, splits_of, sse
from pictures import beside

from aetrain.api import Trained
from aetrain.views.scatter import scatter

CLAIM = (
    "In the plane of the 2-unit code of 784-128-64-10-2, the classes separate better than in the plane of PCA's first "
    "two components."
)
LESSON = "A nonlinear code of two units separates classes better than two principal components."
RESULT = "10-NN accuracy {10-NN accuracy, ELU units} (ELU), PCA {10-NN accuracy, PCA}"
RUNS = {
    "sigmoid": ["experiment=code_2d"],
    "ELU": ["experiment=code_2d", "model.activation=elu", "optimizer.lr=0.003"],
}
SCATTER_IMAGES = 2000


def check(runs: dict[str, Trained]) -> Outcome:
    """Check that 10-NN on the code is 10 points more accurate than on PCA, and that the error is lower."""
    sigmoid, elu = runs["sigmoid"], runs["ELU"]
    data = splits_of(sigmoid)
    pca = pca_of(data.train, 2)
    codes = {"sigmoid units": sigmoid.encode, "ELU units": elu.encode, "PCA": pca.encode}
    accuracy = {name: knn_accuracy(encode, data) for name, encode in codes.items()}
    x, examples = pixels(data.test), data.test[:SCATTER_IMAGES]
    picture = beside(
        sigmoid.directory / "figures" / "beside_pca.png",
        [scatter(encode(pixels(examples)), examples.labels) for encode in codes.values()],
        [f"{name}: {value:.0%}" for name, value in accuracy.items()],
    )
    pca_sse = sse(pca.reconstruct(x), x)
    metrics = {f"10-NN accuracy, {name}": value for name, value in accuracy.items()} | {
        "test SSE, sigmoid units": sigmoid.metrics["test/sse"],
        "test SSE, ELU units": elu.metrics["test/sse"],
        "test SSE of PCA-2": pca_sse,
    }
    holds = accuracy["sigmoid units"] > accuracy["PCA"] + 0.1 and sigmoid.metrics["test/sse"] < pca_sse
    note = (
        "The result of the document's sigmoid units depends on the seed. `model.activation=elu optimizer.lr=0.003` is "
        "the same network with units that do not saturate."
    )
    return Outcome(metrics, holds, picture, note)
