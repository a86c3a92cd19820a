"""A code of two units is a map of the digits (Hinton & Salakhutdinov 2006, figure 3)."""

from evidence import data_of, knn_accuracy, side_by_side
from experiments import Outcome

from aetrain.evaluation import ruler
from aetrain.library import Trained
from aetrain.views.scatter import scatter

CLAIM = (
    "In the plane of the 2-unit code of 784-128-64-10-2 the classes separate better than in that of PCA's first two."
)
RUNS = {
    "sigmoid": ["experiment=code_2d"],
    "ELU": ["experiment=code_2d", "model.activation=elu", "optimizer.lr=0.003"],
}
SHOWN = 2000


def check(runs: dict[str, Trained]) -> Outcome:
    """The 10 nearest training codes call 10 points more of the test digits right, and the error is lower."""
    sigmoid, elu = runs["sigmoid"], runs["ELU"]
    data = data_of(sigmoid)
    pca = data.pca(2)
    codes = {"sigmoid units": sigmoid.encode, "ELU units": elu.encode, "PCA": pca.encode}
    accuracy = {
        name: knn_accuracy(encode(data.train), data.train_labels, encode(data.test), data.test_labels)
        for name, encode in codes.items()
    }
    labels = data.test_labels[:SHOWN]
    picture = side_by_side(
        sigmoid.directory / "figures" / "beside_pca.png",
        {f"{name}: {accuracy[name]:.0%}": scatter(encode(data.test[:SHOWN]), labels) for name, encode in codes.items()},
    )
    pca_sse = float(ruler.sse(pca.reconstruct(data.test), data.test).mean())
    figures = {f"10-NN accuracy, {name}": value for name, value in accuracy.items()} | {
        "test SSE, sigmoid units": sigmoid.metrics["test/sse"],
        "test SSE, ELU units": elu.metrics["test/sse"],
        "test SSE of PCA-2": pca_sse,
    }
    holds = accuracy["sigmoid units"] > accuracy["PCA"] + 0.1 and sigmoid.metrics["test/sse"] < pca_sse
    note = (
        "How well the document's sigmoid units do depends on the seed; `model.activation=elu optimizer.lr=0.003` is "
        "the same network with units that do not saturate."
    )
    return Outcome(figures, holds, picture, note)
